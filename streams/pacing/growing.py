"""Epochs that grow: from the easiest samples to all of them, or from the hardest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from cl_platform.core.order.pacing import Pacing, part_of


class EasyToHard(Pacing):
    """A growing share of the samples, the easiest ones first; then all of them.

    Samples of equal difficulty come in random order. Source: Bengio et al. 2009, with the linear
    competence of Platanios et al. 2019, by epochs.

    Args:
        start: share of the first epoch.
        until: epochs until all samples take part; None for half of the run's.
    """

    start: Annotated[float, Field(gt=0, le=1)] = 0.25
    until: PositiveInt | None = None

    def rank(self, difficulty: np.ndarray) -> np.ndarray:
        """Return what samples are sorted by, (n,); those of the first epochs have the least."""
        return difficulty

    def __call__(
        self, difficulty: np.ndarray, epochs: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        n, until = len(difficulty), self.until or -(-epochs // 2)
        order = np.lexsort((rng.random(n), self.rank(difficulty)))
        for epoch in itertools.count():
            share = self.start + (1 - self.start) * min(1.0, epoch / until)
            yield order[: part_of(n, share)]


class HardToEasy(EasyToHard):
    """A growing share of the samples, the hardest ones first; then all of them.

    Args:
        start: share of the first epoch.
        until: epochs until all samples take part; None for half of the run's.
    """

    def rank(self, difficulty: np.ndarray) -> np.ndarray:
        return -difficulty
