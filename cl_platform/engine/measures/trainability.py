"""Trainability: how well a state still learns something new, from where its weights are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from cl_platform.config.training import Optimizer
from cl_platform.core.rng import global_generators
from cl_platform.engine.evaluation import DIGITS, credit
from cl_platform.engine.optimization import build_optimizer

SEED = 0  # of labels and batches: the same task for every state and run
SAMPLES, BATCH = 256, 32  # of the task; samples a step


def trainability(model: nn.Module, x: Tensor, config: Optimizer, steps: int) -> float | None:
    """Return the accuracy that a model reaches on random labels in so many steps.

    It is trained by copies of its weights and buffers, which its forward pass uses in their place:
    the model stays as it is.

    Source: the probe tasks of Lyle et al. 2023 ("Understanding plasticity in neural networks").

    Args:
        model: gives logits (B, n_classes); all its classes compete.
        x: inputs of the task, (B, ...).
        config: the optimizer, without its groups.
        steps: of `BATCH` samples each.

    Returns:
        Accuracy on the same inputs, in eval mode; None where nothing of the model is trained.
    """
    trained = {
        n: nn.Parameter(p.detach().clone()) for n, p in model.named_parameters() if p.requires_grad
    }
    if not trained:
        return None
    buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
    optimizer = build_optimizer(
        nn.ParameterList(trained.values()), config.model_copy(update={"groups": [], "no_decay": []})
    )
    assert optimizer is not None

    own: dict[str, Tensor] = {**buffers, **trained}

    def logits(rows: Tensor) -> Tensor:
        found: Tensor = functional_call(model, own, (x[rows],))
        return found

    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        generator = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            n_classes = logits(torch.arange(1)).shape[1]
        y = torch.randint(n_classes, (len(x),), generator=generator).to(x.device)
        model.train()
        with global_generators(SEED):  # which dropout draws from
            for _ in range(steps):
                rows = torch.randperm(len(x), generator=generator)[:BATCH].to(x.device)
                optimizer.zero_grad()
                cross_entropy(logits(rows), y[rows]).backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            every = torch.ones(1, n_classes, dtype=torch.bool, device=x.device)
            found = credit(logits(torch.arange(len(x))), y, every)
    finally:
        for module, training in modes:
            module.training = training
    return round(float(found.mean()), DIGITS)
