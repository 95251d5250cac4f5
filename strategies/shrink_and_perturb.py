"""Shrink and perturb: weights are scaled down and disturbed before each new experience."""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from cl_platform import Experience, Strategy, StreamInfo, Wrapper
from strategies.baselines import Finetune
from strategies.parts.gradients import trainable


class ShrinkAndPerturb(Wrapper):
    """Shrink and perturb around any strategy.

    Source: Ash & Adams 2020, "On Warm-Starting Neural Network Training", Section 4: when new data
    have arrived, theta <- shrink theta + N(0, noise^2). Here that is before each experience but the
    first, on all that is trained; what a strategy sets anew there comes after it. Running
    statistics of batch norm stay as they are. With ``shrink=1`` and ``noise=0`` every bit is the
    inner strategy's.

    Args:
        inner: the strategy that is trained.
        shrink: factor on the weights (lambda in the paper).
        noise: standard deviation of what is added to each (sigma).
    """

    inner: Strategy = field(default_factory=Finetune)
    shrink: NonNegativeFloat = 0.6
    noise: NonNegativeFloat = 0.01

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.generator = info.rng.generator("perturb")

    def begin_experience(self, experience: Experience) -> None:
        if self.info.rng.step > 1:
            self.perturb()
        self.inner.begin_experience(experience)

    @torch.no_grad()
    def perturb(self) -> None:
        """Scale down and disturb all that is trained."""
        parameters: list[Tensor] = trainable(self.inner)
        torch._foreach_mul_(parameters, self.shrink)
        for p in parameters if self.noise else ():
            p.add_(torch.empty_like(p).normal_(generator=self.generator), alpha=self.noise)
