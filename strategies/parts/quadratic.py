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

    @property
    def holds(self) -> bool:
        """Whether there is a penalty yet."""
        return bool(self.index)

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss + self.strength * self.penalty(self.model) if self.holds else loss

    def training_step(self, batch: Batch) -> Tensor:
        """Take a step on :meth:`loss`, the penalty's gradient being added in place."""
        own = type(self).loss is not Penalised.loss
        if own or "loss" in vars(self):  # compiled, or shared out among processes
            return super().training_step(batch)
        loss = super().loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        loss = loss.detach()
        if self.holds:
            loss = loss + self.penalty.pull(self.model, self.strength)
        self.move()
        return loss

    def minimise(self, loss: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss.backward()
        self.move()
        return loss.detach()

    def move(self) -> None:
        """Move the parameters by the gradients that they have."""
        self.optimizer.step()


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

    @torch.no_grad()
    def pull(self, model: nn.Module, strength: float) -> Tensor:
        """Add the gradient of `strength` times the penalty to the parameters'; return its value.

        It is a backward pass through :meth:`forward`, up to rounding, but is made while gradients
        are in a processor's cache: passes over memory of the model's size are all that it costs.
        """
        parameters = trainable(model)
        gradients = []
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            gradients.append(p.grad)
        importance, anchor = views(self.importance, parameters), views(self.anchor, parameters)
        value, pull = _half_quadratic(importance, anchor, parameters)
        torch._foreach_add_(gradients, pull, alpha=strength)
        return strength * (value + self.offset)

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
        value, ctx.pull = _half_quadratic(importance, anchor, list(parameters))
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Any, ...]:
        return (None, None, *torch._foreach_mul(ctx.pull, outer))


def _half_quadratic(
    importance: list[Tensor], anchor: list[Tensor], parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return 1/2 sum importance (theta - anchor)^2 and importance (theta - anchor)."""
    apart = torch._foreach_sub(parameters, anchor)
    pull = list(torch._foreach_mul(apart, importance))
    dots = [torch.dot(p.flatten(), a.flatten()) for p, a in zip(pull, apart, strict=True)]
    return torch.stack(dots).sum() / 2, pull
