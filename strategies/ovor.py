"""OnePrompt with virtual outlier regularisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import huber_loss, relu

from cl_platform import Experience, StreamInfo
from strategies.oneprompt import OnePrompt
from strategies.parts.outliers import OutlierSampler


class OVOR(OnePrompt):
    """OnePrompt whose head is trained, after each experience, to have low confidence on outliers.

    Source: Huang et al. 2024, "OVOR: OnePrompt with Virtual Outlier Regularization for
    Rehearsal-Free Class-Incremental Learning", section 4. After the epochs of the run, the head
    alone is trained for some more with fixed prompts, on the cross-entropy plus `strength` times
    the Huber losses of ``relu(E(sample) - sample_energy)`` and ``relu(outlier_energy -
    E(outlier))``, where E is the energy over the classes of the experience.

    In the authors' code the optimizer and its decreasing rate go on from the prompts' training, a
    fifth of all epochs of the published results is in this stage, and outliers are drawn around the
    origin (``outliers=code``): the energy stays high for features near zero. ``outliers=npos`` is
    the paper's description, with all distances between features as the head sees them.

    Args:
        outliers: their kind.
        strength: weight of both energy terms (lambda).
        sample_energy: energies of samples above it are penalised (tau of in-distribution).
        outlier_energy: energies of outliers below it are penalised (tau of outliers).
        regularised_epochs: epochs of the head alone; 0 is OnePrompt.
        regularised_lr: learning rate of their Adam, which starts anew with every experience.
        regularised_batch_size: samples of a step there; outliers are shared out evenly among steps.
        boundary, draws, kept, neighbour, noise: see :class:`OutlierSampler`; `neighbour` is its k,
            and `noise` is called a covariance in the code, which multiplies draws by it.
    """

    needs_second_pass = True
    refuses = ("ema",)  # the head is trained on after the last step that is averaged

    outliers: Literal["npos", "code"] = "npos"
    strength: NonNegativeFloat = 0.1
    sample_energy: float = -15.0
    outlier_energy: float = -3.0
    regularised_epochs: NonNegativeInt = 4
    regularised_lr: PositiveFloat = 0.001
    regularised_batch_size: PositiveInt = 128
    boundary: PositiveInt = 50
    draws: PositiveInt = 600
    kept: PositiveInt = 40
    neighbour: PositiveInt = 50
    noise: PositiveFloat = 0.1

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.generator = info.rng.generator("ovor")
        self.sampler = OutlierSampler(
            self.boundary, self.draws, self.kept, self.neighbour, self.noise
        )

    def end_experience(self, experience: Experience) -> None:
        if not self.regularised_epochs:
            return
        features, y = self.trained_features(experience)
        task = torch.full_like(y, experience.task) if self.info.scenario == "task" else None
        optimizer = torch.optim.Adam(self.head.parameters(), lr=self.regularised_lr)
        for _ in range(self.regularised_epochs):
            for rows, outliers in self.regularised_steps(features, y):
                logits = self.classify(features[rows], None if task is None else task[rows])
                loss = self.cross_entropy(logits, y[rows])
                loss = loss + self.strength * self.energy_loss(logits, self.classify(outliers))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    @torch.no_grad()
    def trained_features(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Return the features of an experience's training data, (N, width), and classes (N,)."""
        parts = [(self.represent(b.x).float(), b.y) for b in self.batches(experience)]
        features, y = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(y)

    def regularised_steps(self, features: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows (B,) and the outliers (M, width) of each step of an epoch."""
        outliers = self.draw_outliers(features, y)
        order = torch.randperm(len(y), generator=self.generator, device=y.device)
        batches = order.split(self.regularised_batch_size)
        dealt = torch.randperm(len(outliers), generator=self.generator, device=y.device)
        rounds = -(-len(batches) // len(dealt))  # too few outliers are used several times
        shares = dealt.repeat(rounds).tensor_split(len(batches))
        for rows, share in zip(batches, shares, strict=True):
            yield rows, outliers[share]

    def draw_outliers(self, features: Tensor, y: Tensor) -> Tensor:
        """Draw outliers (M, width) for the features (N, width) and classes (N,)."""
        if self.outliers == "npos":
            return self.sampler.at_boundary(features, y, self.generator)
        return self.sampler.at_origin(features, len(y.unique()), self.generator)

    def energy_loss(self, logits: Tensor, outlier_logits: Tensor) -> Tensor:
        """Return both energy terms for logits (B, n_classes) and outlier_logits (M, n_classes)."""
        above = relu(self.energy(logits) - self.sample_energy)
        below = relu(self.outlier_energy - self.energy(outlier_logits))
        terms = [huber_loss(excess, torch.zeros_like(excess)) for excess in (above, below)]
        return torch.stack(terms).sum()

    def energy(self, logits: Tensor) -> Tensor:
        """Return E (B,) of logits (B, n_classes): -logsumexp over the experience's classes."""
        return -logits[:, self.present].logsumexp(1)
