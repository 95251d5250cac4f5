"""Refresh learning: unlearn a little before every step, then learn."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo, Wrapper
from cl_platform.errors import BadInput
from strategies.der import DERPlusPlus
from strategies.parts.fisher import diagonal_fisher
from strategies.parts.gradients import flatten, frozen_statistics, trainable, views


class Refresh(Wrapper):
    """Refresh learning around any strategy.

    Source: Wang et al. 2024, "A Unified and General Framework for Continual Learning", Eq. 13 and
    Algorithm 1. Before each training step of the inner strategy its parameters are perturbed:

    - ``mode=paper``: theta += gamma P grad L + noise N(0, 2 gamma P), where L is the inner
      strategy's loss and P the inverse of (Fisher + damping). The paper has no damping; but the
      Fisher information is zero before the end of the first experience.
    - ``mode=code``, the authors' code: the direction d is that of one step of ascent on the
      cross-entropy of the new batch alone, scaled in each tensor to the tensor's own length, and
      theta += gamma / (1 + 0.001 Fisher) (d + 0.001 noise N(0, 1)). Their gamma is 1e-5.

    The perturbation stays, and the inner step takes its gradient there. A batch drawn from a memory
    to unlearn is drawn again to be relearned. With gamma at 0 every bit is the inner strategy's.
    Training at the end of an experience (GDumb) is not perturbed. The effect on accuracy is
    measured in ``docs/refresh_results.md``.

    Args:
        inner: the strategy; DER++ in the paper.
        mode: one of the two updates.
        gamma: length of the unlearning step.
        noise: factor on the noise; 0 omits it.
        steps: unlearning steps before each training step (J).
        damping: added to the Fisher information in ``paper`` mode; 0 does not move parameters
            without information.
        decay: of the old Fisher information at the end of each experience.
        fisher_samples: samples of an experience for the Fisher information; None uses all.
    """

    needs_second_pass = True  # for the Fisher information

    inner: Strategy = field(default_factory=DERPlusPlus)
    mode: Literal["paper", "code"] = "paper"
    gamma: NonNegativeFloat = 1e-5
    noise: NonNegativeFloat = 1.0
    steps: NonNegativeInt = 1
    damping: NonNegativeFloat = 1.0
    decay: NonNegativeFloat = 1e-5
    fisher_samples: PositiveInt | None = 1000

    @property
    def refuses(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.inner.refuses, "accumulate")  # it moves the weights before every batch

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if not hasattr(self.inner, "model"):
            raise BadInput(
                "refresh changes the one model of a strategy; "
                f"{type(self.inner).__name__} has a model per task: give another inner strategy"
            )
        if not trainable(self.model):
            raise BadInput(
                "refresh changes what a strategy trains; "
                f"{type(self.inner).__name__} trains none of the model's weights: give another "
                "inner strategy"
            )
        self.generator = info.rng.generator("refresh")
        self.fisher = nn.Buffer(torch.zeros_like(flatten(trainable(self.model))))

    def begin_experience(self, experience: Experience) -> None:
        self.inner.begin_experience(experience)
        if sum(p.numel() for p in trainable(self.model)) != len(self.fisher):
            raise BadInput(
                "refresh changes what a strategy trains, the same weights in all experiences; "
                f"{type(self.inner).__name__} trains others now: give another inner strategy"
            )
        self.scale()

    def scale(self) -> None:
        """Compute the factors of the drift and of the noise, which change with `fisher` only."""
        if self.mode == "paper":
            total = self.fisher + self.damping
            inverse = torch.where(total > 0, 1 / total, 0.0)
            drift, noise = self.gamma * inverse, (2 * self.gamma * inverse).sqrt()
        else:
            drift = self.gamma / (1 + 0.001 * self.fisher)
            noise = 0.001 * drift
        parameters = trainable(self.model)
        self.drift, self.spread = views(drift, parameters), views(self.noise * noise, parameters)

    def training_step(self, batch: Batch) -> Tensor:
        for _ in range(self.steps if self.gamma else 0):
            self.unlearn(batch)
        return self.inner.training_step(batch)

    def unlearn(self, batch: Batch) -> None:
        """Perturb the inner strategy's parameters once."""
        parameters = trainable(self.model)
        with self.info.rng.rewound(), frozen_statistics(self.model):
            if self.mode == "paper":
                loss = self.inner.loss(batch)
            else:
                new = batch.new
                logits = self.inner.restrict(self.model(new.x), new.task)
                loss = self.inner.cross_entropy(logits, new)
            ascent = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        with torch.no_grad():
            if self.mode == "code":
                ascent = as_long_as(parameters, ascent)
            torch._foreach_addcmul_(parameters, ascent, self.drift)
            if self.noise:
                random = [torch.empty_like(p).normal_(generator=self.generator) for p in parameters]
                torch._foreach_addcmul_(parameters, random, self.spread)

    def end_experience(self, experience: Experience) -> None:
        self.inner.end_experience(experience)
        if self.inner.trains_on == "stream":  # nothing follows it
            return
        samples, confident = self.fisher_samples, self.mode == "code"
        new = diagonal_fisher(self.inner, experience, samples=samples, confident=confident)
        self.fisher.mul_(self.decay).add_(new)


def as_long_as(parameters: list[Tensor], directions: list[Tensor]) -> list[Tensor]:
    """Scale each direction to the length of its parameter."""
    lengths = zip(torch._foreach_norm(parameters), torch._foreach_norm(directions), strict=True)
    return [d * (p / (own + 1e-20)) for d, (p, own) in zip(directions, lengths, strict=True)]
