"""The quadratic penalty that EWC, SI and MAS share."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from cl_platform import Batch, Strategy, StreamInfo
from strategies.parts.gradients import flatten, trainable, views


class Penalised(Strategy):
    """Cross-entropy, and from the second experience on a quadratic penalty that subclasses fill.

    Args:
        strength: the loss is cross-entropy + strength/2 sum importance (theta - anchor)^2.
    """

    strength: NonNegativeFloat = 1.0

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.penalty = QuadraticPenalty(self.model)

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss + self.strength * self.penalty(self.model) if self.index else loss


class QuadraticPenalty(nn.Module):
    """1/2 sum_i importance_i (theta_i - anchor_i)^2 + offset over a model's trainable parameters.

    Its size does not depend on the number of penalties added: a sum of quadratics is one quadratic
    (Huszar 2018, "Note on the quadratic penalties in elastic weight consolidation").
    """

    importance: Tensor
    anchor: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trained = [p.requires_grad for p in model.parameters()]
        start = flatten(trainable(model))
        self.register_buffer("importance", torch.zeros_like(start))
        self.register_buffer("anchor", start)
        self.register_buffer("offset", torch.zeros_like(start[0]))

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty of the model's present parameters, a scalar."""
        # Where several models are trained side by side, parameters do not say that they are.
        parameters: list[Tensor] = [
            p for p, t in zip(model.parameters(), self.trained, strict=True) if t
        ]
        importance, anchor = views(self.importance, parameters), views(self.anchor, parameters)
        if is_batchedtensor(parameters[0]):
            return _half_quadratic(importance, anchor, parameters) + self.offset
        value: Tensor = _HalfQuadratic.apply(importance, anchor, *parameters)
        return value + self.offset

    def replace(self, importance: Tensor, anchor: Tensor) -> None:
        """Make `importance` and `anchor`, both (P,), the only penalty."""
        self.importance.copy_(importance)
        self.anchor.copy_(anchor)
        self.offset.zero_()

    def add(self, importance: Tensor, anchor: Tensor) -> None:
        """Add 1/2 sum_i importance_i (theta_i - anchor_i)^2 to the penalty, exactly."""
        total = self.importance + importance
        share = torch.where(total > 0, importance / total, 1.0)  # of the new part
        apart = (anchor - self.anchor).square()
        self.offset.add_((self.importance * share * apart).sum() / 2)
        self.anchor.lerp_(anchor, share)
        self.importance.copy_(total)


def _half_quadratic(
    importance: list[Tensor], anchor: list[Tensor], parameters: list[Tensor]
) -> Tensor:
    """Return what :class:`_HalfQuadratic` does, with its gradient, under ``torch.vmap``."""
    apart = [p - a for p, a in zip(parameters, anchor, strict=True)]
    pull = [(a * i).detach() for a, i in zip(apart, importance, strict=True)]
    dots = [torch.dot(p.flatten(), a.flatten()) for p, a in zip(pull, apart, strict=True)]
    twice = torch.stack(dots).sum()
    return twice - twice.detach() / 2


class _HalfQuadratic(torch.autograd.Function):
    """The sum and its gradient importance * (theta - anchor), in few passes over parameters."""

    @staticmethod
    def forward(
        ctx: Any, importance: list[Tensor], anchor: list[Tensor], *parameters: Tensor
    ) -> Tensor:
        apart = torch._foreach_sub(parameters, anchor)
        pull = torch._foreach_mul(apart, importance)
        ctx.pull = pull
        dots = [torch.dot(p.flatten(), a.flatten()) for p, a in zip(pull, apart, strict=True)]
        return torch.stack(dots).sum() / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Any, ...]:
        return (None, None, *torch._foreach_mul(ctx.pull, outer))
