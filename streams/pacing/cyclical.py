"""Epochs that shrink and grow, and prefer easy (or hard) samples while they are small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cl_platform.core.order.pacing import Pacing, part_of
from cl_platform.errors import BadInput

Part = Annotated[float, Field(gt=0, le=1)]
TINY = 1e-8  # of a difficulty, so that its inverse is a number


class Cyclical(Pacing):
    """Sizes go from `start` up to `end` and back, and so on; the small ones prefer easy samples.

    An epoch is drawn without replacement, with weights of one by the difficulty; by ``hard``, of
    the difficulty itself. Source: Kesgin & Amasyali, "Cyclical Curriculum Learning" (2022), and
    its code; there the last epoch may go beyond the budget, here it is cut.

    Args:
        start: smallest size, as a share of the experience's samples.
        end: largest size.
        alpha: factor between an epoch and the next larger one.
        direction: which samples the small epochs prefer.
    """

    start: Part = 0.25
    end: Part = 1.0
    alpha: Part = 0.5
    direction: Literal["easy", "hard"] = "easy"

    def __post_init__(self) -> None:
        if self.start > self.end or (self.alpha == 1 and self.start < self.end):
            raise BadInput(
                f"pacing.start={self.start} never gets to pacing.end={self.end} by "
                f"pacing.alpha={self.alpha}: give start <= end, and alpha < 1 unless they are equal"
            )

    def sizes(self) -> Iterator[float]:
        """Yield the sizes of epochs, as shares, without end."""
        size, growing = self.start, True
        while True:
            yield size
            if self.start == self.end:
                continue
            growing = size < self.end if growing else size <= self.start
            size = min(self.end, size / self.alpha) if growing else size * self.alpha
            size = max(self.start, size)

    def __call__(
        self, difficulty: np.ndarray, epochs: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        weights = np.log(np.maximum(difficulty, TINY))
        weights = -weights if self.direction == "easy" else weights
        for size in self.sizes():
            k = part_of(len(weights), size)
            # The largest of logarithms with Gumbel noise are draws without replacement (Yellott).
            yield np.argpartition(-(weights + rng.gumbel(size=len(weights))), k - 1)[:k]
