"""The quadratic penalty that EWC, SI and MAS share."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

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
        start = flatten(trainable(model))
        self.register_buffer("importance", torch.zeros_like(start))
        self.register_buffer("anchor", start)
        self.register_buffer("offset", torch.zeros_like(start[0]))

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty of the model's present parameters, a scalar."""
        parameters = trainable(model)
        importance, anchor = views(self.importance, parameters), views(self.anchor, parameters)
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
        # Scaled in place and held by nobody else, so that autograd adds to it in place as well:
        # fresh memory of the model's size would cost as much as the rest.
        pull = ctx.pull
        del ctx.pull
        torch._foreach_mul_(pull, outer)
        return (None, None, *pull)
