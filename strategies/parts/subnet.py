"""A small part of a network that is tuned while all the rest keeps its bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from strategies.parts.gradients import flatten, views


class Subnet:
    """The chosen weights among some tensors; :meth:`hold` undoes what happened to the others.

    Masked gradients would not do: momentum and weight decay move weights without a gradient.

    Args:
        weights: of a block.
        chosen: of all their numbers, (P,) bool.
    """

    def __init__(self, weights: Sequence[Tensor], chosen: Tensor) -> None:
        self.weights = list(weights)
        self.chosen = views(chosen, self.weights)
        self.before = [w.detach().clone() for w in self.weights]

    @torch.no_grad()
    def hold(self) -> None:
        """Put back what must not change; to be called after every step of the optimizer."""
        for weight, chosen, before in zip(self.weights, self.chosen, self.before, strict=True):
            weight.copy_(torch.where(chosen, weight, before))


def most_important(weights: Sequence[Tensor], gradients: Sequence[Tensor], share: float) -> Tensor:
    """Return which weights have the largest |gradient * weight|, (P,) bool.

    Args:
        share: of all, more than 0; at least one is chosen.
    """
    scores = (flatten(gradients) * flatten(weights)).abs()
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(math.ceil(share * len(scores))).indices] = True
    return chosen


def last_block(model: nn.Module) -> list[nn.Parameter]:
    """Return the weight matrices and kernels of the last block before a model's classifier.

    Blocks are what the last of the model's outermost sequences consists of: a residual block, a
    layer of a transformer, a linear layer of an MLP. Biases and normalisations do not count.
    """
    inside: set[int] = set()
    last: nn.Module = model
    for module in model.modules():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            if id(module) not in inside and _matrices(module):
                last = module
            inside |= {id(m) for m in module.modules()}
    while isinstance(last, nn.Sequential | nn.ModuleList):
        last = [child for child in last if _matrices(child)][-1]
    classifier = getattr(model, "classifier", None)
    head = {id(p) for p in classifier.parameters()} if isinstance(classifier, nn.Module) else set()
    return [p for p in _matrices(last) if id(p) not in head]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.dim() > 1]
