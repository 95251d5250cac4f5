"""Any function from stored inputs to logits, scored as the run was."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cl_platform.core.samples import Samples
from cl_platform.engine.evaluation import credit
from cl_platform.engine.plan import Plan

Predict = Callable[[Tensor, Tensor], Tensor]
"""Stored inputs (B, ...) and task labels (B,) -> logits (B, n_classes), -inf where not allowed."""
ROWS = 125


def batches(samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield stored inputs (B, ...) and labels (B,) on the CPU, in order."""
    for rows in torch.arange(len(samples), device=samples.index.device).split(ROWS):
        yield samples.gather(rows).cpu(), samples.y[rows].cpu()


@torch.inference_mode()
def row_of(predict: Predict, plan: Plan) -> list[float]:
    """Return the accuracy on the test data of each experience, in the order of learning.

    Args:
        predict: gives logits for the classes as the stream numbers them.
    """
    given = torch.tensor(plan.labels).argsort()  # of each class index of the run
    own = plan.stream.task_classes()[:, list(plan.labels)]
    row = []
    for e in plan.stream.scored:
        scores = []
        for raw, y in batches(e.test):
            logits = predict(raw, torch.full_like(y, e.task)).cpu()
            possible = logits > -torch.inf
            if plan.stream.scenario == "task":  # even if none of them has arrived
                possible = own[e.task].expand_as(logits)
            scores.append(credit(logits, given[y], possible))
        row.append(float(torch.cat(scores).mean()))
    return row


@torch.inference_mode()
def difference(one: Predict, other: Predict, plan: Plan) -> float:
    """Return by how much the logits of two differ on test data: at most, relative to
    max(1, |logit|); infinity where only one of them is infinite."""
    worst = 0.0
    for e in plan.stream.scored:
        for raw, y in batches(e.test):
            task = torch.full_like(y, e.task)
            a, b = one(raw, task).double(), other(raw, task).double()
            if not torch.equal(a == -torch.inf, b == -torch.inf):
                return float("inf")
            gap = (a - b).abs() / b.abs().clamp(min=1)
            worst = max(worst, float(gap.masked_fill(b == -torch.inf, 0).max()))
    return worst
