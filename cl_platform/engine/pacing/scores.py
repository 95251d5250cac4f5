"""How difficult samples are by a model that was trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_platform.core.strategy import Strategy
from cl_platform.engine.evaluation import logits_of, without_trace
from cl_platform.engine.plan import Step

ROWS = 250  # in one forward pass


@torch.inference_mode()
def look_at(strategy: Strategy, step: Step) -> Tensor:
    """Return what a strategy makes of the data of a step, (n, 3) float64.

    Returns:
        The logarithm of the probability of the right class, the largest probability of another,
        and the sum of all squared; among the classes seen, or those of the task where it is known.
    """
    info, data, tasks = strategy.info, step.data(), step.tasks()
    found = []
    with without_trace(strategy):
        for rows in torch.arange(len(data), device=data.index.device).split(ROWS):
            x = info.preprocess(data.gather(rows).to(info.device))
            y, task = (values[rows].to(info.device)[:, None] for values in (data.y, tasks))
            allowed = info.task_classes[task[:, 0]] if info.scenario == "task" else info.seen
            logits = logits_of(strategy, x, task[:, 0]).double()
            chances = logits.masked_fill(~allowed, -torch.inf).log_softmax(1)
            p = chances.exp()
            others = p.scatter(1, y, 0.0).amax(1)
            found.append(torch.stack((chances.gather(1, y)[:, 0], others, p.square().sum(1)), 1))
    return torch.cat(found).cpu()


def scores_of(looks: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the scores of samples by name, (n,) float32; more is harder.

    See :class:`cl_platform.core.order.pacing.Pacing` for what they are.

    Args:
        looks: what :func:`look_at` returned after each epoch.
    """
    chances, others, squares = looks[-1].unbind(1)
    p = chances.exp()
    right = torch.stack([look[:, 0].exp() for look in looks])  # (epochs, n)
    scores = {
        "loss": -chances,
        "margin": 1 - (p - others),
        "el2n": (squares - 2 * p + 1).clamp(min=0).sqrt(),
        "confidence": 1 - right.mean(0),
        "variability": right.std(0, correction=0),
    }
    return {name: values.float() for name, values in scores.items()}
