"""Fast and slow weights."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from cl_platform import Experience, StreamInfo
from cl_platform.models.precision import comparing
from strategies.parts.fisher import Estimate, diagonal_fisher
from strategies.parts.gradients import flatten, trainable
from strategies.parts.quadratic import Penalised
from strategies.parts.snapshot import Snapshot

WAYS, QUERIES = 5, 15  # classes of an episode, and test samples of each


class FastSlow(Penalised):
    """Fast weights learn each experience and remember; slow ones follow, to learn from few shots.

    A variant of ours: of the published method, fast and slow weights in pairs that consolidate in
    two steps, we know what its abstract claims. Here fast weights start each experience at the slow
    ones and learn under the penalty of online EWC, lambda/2 sum F (fast - fast_before)^2 with the
    Fisher information F of all experiences; then slow += rate (fast - slow), the step of Reptile
    (Nichol et al. 2018), batch-norm statistics included. Predictions are those of fast weights.
    With ``rate=0`` slow weights never move; with ``rate=1`` this is online EWC, and fine-tuning if
    `strength` is 0 as well.

    How well either learns new classes from few shots is in the diagnostics ``few_shot_slow`` and
    ``few_shot_fast``: before an experience of new classes is learned, its samples make episodes,
    `shots` samples for each of up to 5 classes, whose means of features then classify others. If
    the claim holds, ``few_shot_slow`` rises with the number of experiences learned.

    Args:
        strength: lambda.
        rate: of the slow weights, 0 to 1.
        schedule: the rate of the k-th experience is `rate`, or with ``harmonic`` rate/k.
        fisher, fisher_samples: see :class:`strategies.ewc.EWC`.
        episodes: drawn for the diagnostics; 0 leaves them out.
        shots: samples of a class that an episode learns from.
    """

    needs_second_pass = True

    strength: NonNegativeFloat = 10.0
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    schedule: Literal["fixed", "harmonic"] = "fixed"
    fisher: Estimate = "empirical"
    fisher_samples: PositiveInt | None = 1000
    episodes: NonNegativeInt = 50
    shots: PositiveInt = 5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.slow = Snapshot(self.model)
        self.few_shot: dict[str, float | list[float]] = {}
        self.generator = info.rng.generator("fast-slow/episodes")

    def begin_experience(self, experience: Experience) -> None:
        self.few_shot = {}
        if self.episodes and not self.returning and self.info.scenario != "domain":
            self.probe(experience)
        self.model.load_state_dict(self.slow.model.state_dict())

    def end_experience(self, experience: Experience) -> None:
        new = diagonal_fisher(self, experience, self.fisher, self.fisher_samples)
        self.penalty.replace(self.penalty.importance + new, flatten(trainable(self.model)))
        rate = self.rate / (self.index + 1) if self.schedule == "harmonic" else self.rate
        fast = self.model.state_dict()
        for name, slow in self.slow.model.state_dict().items():
            if slow.is_floating_point():
                slow.lerp_(fast[name], rate)  # exact at 0 and at 1
            elif rate:
                slow.copy_(fast[name])

    @torch.no_grad()
    def probe(self, experience: Experience) -> None:
        """Note the mean accuracy of both on episodes of classes that neither has seen."""
        batches = [*self.batches(experience, samples=1000)]
        y = torch.cat([b.y for b in batches])
        drawn = [rows for _ in range(self.episodes) if (rows := self._episode(y))]
        mode = self.model.training
        self.model.eval()
        for name, model in (("slow", self.slow.model), ("fast", self.model)):
            embed = getattr(model, "features", model)
            features = torch.cat([embed(b.x).float().flatten(1) for b in batches])
            right = [nearest_mean(features, rows, self.shots) for rows in drawn]
            if right:
                self.few_shot[f"few_shot_{name}"] = float(torch.stack(right).mean())
        self.model.train(mode)

    def _episode(self, y: Tensor) -> list[Tensor]:
        """Draw rows of classes that have enough samples, `shots` and then the queries of each."""
        device = y.device
        rows = []
        for c in torch.unique(y).tolist():
            own = torch.nonzero(y == c).flatten()
            if len(own) > self.shots:
                order = torch.randperm(len(own), generator=self.generator, device=device)
                rows.append(own[order[: self.shots + QUERIES]])
        chosen = torch.randperm(len(rows), generator=self.generator, device=device)[:WAYS]
        return [rows[i] for i in chosen.tolist()] if len(rows) > 1 else []

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return the accuracies on episodes before the present experience was learned."""
        return {**super().diagnostics(), **self.few_shot}


def nearest_mean(features: Tensor, rows: list[Tensor], shots: int) -> Tensor:
    """Return the share of queries that are nearest to the mean of their class, a scalar.

    Source: prototypical networks (Snell et al. 2017).

    Args:
        features: (N, width).
        rows: of each class, those of its mean before those of its queries.
        shots: how many the mean is of.
    """
    means = torch.stack([features[own[:shots]].mean(0) for own in rows])
    queries = torch.cat([features[own[shots:]] for own in rows])
    sizes = torch.tensor([len(own) - shots for own in rows], device=features.device)
    labels = torch.arange(len(rows), device=features.device).repeat_interleave(sizes)
    with comparing(features.device):
        return (torch.cdist(queries, means).argmin(1) == labels).float().mean()
