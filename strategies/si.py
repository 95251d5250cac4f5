"""Synaptic intelligence."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import nn

from cl_platform import Experience, StreamInfo
from strategies.parts.gradients import flatten, trainable, views
from strategies.parts.quadratic import Penalised


class SI(Penalised):
    """SI: a quadratic penalty holds each parameter in proportion to its part in lowering the loss.

    Source: Zenke et al. 2017, "Continual Learning Through Synaptic Intelligence", Eq. 4 and 5. As
    in most implementations, the path integral takes the gradient of the whole loss, penalty
    included, and importances may be negative.

    Args:
        strength: the loss is cross-entropy + strength/2 sum Omega (theta - theta*)^2; twice the c
            of the paper, the ``si_lambda`` of Avalanche.
        damping: xi, added to the squared distance from the last anchor.
        ceiling: largest importance of a parameter; 0.001 in Avalanche, none in the paper.
    """

    refuses = ("accumulate",)  # the path integral takes the gradient of every step

    strength: NonNegativeFloat = 1.0
    damping: PositiveFloat = 0.1
    ceiling: PositiveFloat | None = None

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        zeros = torch.zeros_like(self.penalty.anchor)
        self.path = nn.Buffer(zeros)  # the integral over the present experience
        self.gained = nn.Buffer(zeros.clone())  # Omega, the sum over all experiences

    def begin_experience(self, experience: Experience) -> None:
        self.path.zero_()
        self.before = [torch.empty_like(p) for p in trainable(self.model)]
        self.slopes = [torch.empty_like(p) for p in trainable(self.model)]

    @torch.no_grad()
    def move(self) -> None:
        parameters = trainable(self.model)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        torch._foreach_copy_(self.before, parameters)
        # A copy, since some optimizers change gradients in place (Nesterov's step, for one).
        torch._foreach_copy_(self.slopes, gradients)
        self.optimizer.step()
        torch._foreach_sub_(self.before, parameters)  # minus the step
        torch._foreach_addcmul_(views(self.path, parameters), self.before, self.slopes)

    def end_experience(self, experience: Experience) -> None:
        here = flatten(trainable(self.model))
        distance = (here - self.penalty.anchor).square()
        self.gained.add_(self.path / (distance + self.damping))
        importance = self.gained if self.ceiling is None else self.gained.clamp(max=self.ceiling)
        self.penalty.replace(importance, here)
