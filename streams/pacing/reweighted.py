"""Epochs in which hard samples are rare at first, and as frequent as all others at last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from cl_platform.core.order.pacing import Pacing


class Reweighted(Pacing):
    """A sample of easiness d weighs d + (e/m)(1 - d) in epoch e of m, and 1 from there on.

    The weight is the probability with which an epoch has the sample, not a factor of its loss. In
    expectation the sum of gradients is the same, and losses of methods that are no mean over
    samples (distillation, contrastive terms, a memory's share) stay as they are published. An
    epoch's size is the sum of the weights, rounded up or down at random; it has no sample twice.

    The easiness is the share of the other samples that are harder, ties by half, so that scores of
    all units, shuffled and uniform ones too, give epochs of the same sizes.

    Args:
        until: the m; None for the run's epochs.
        direction: which samples weigh most at first.
    """

    until: PositiveInt | None = None
    direction: Literal["easy", "hard"] = "easy"

    def __call__(
        self, difficulty: np.ndarray, epochs: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        _, which, counts = np.unique(difficulty, return_inverse=True, return_counts=True)
        easier = (np.cumsum(counts) - (counts + 1) / 2)[which] / max(1, len(difficulty) - 1)
        d = 1 - easier if self.direction == "easy" else easier
        for epoch in itertools.count():
            yield _drawn(d + min(1.0, epoch / (self.until or epochs)) * (1 - d), rng)


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return different rows, row i with probability `weights[i]`, (k,) for weights (n,) in [0, 1].

    Systematic sampling in random order (Madow 1949): the k is the sum of all, up or down.
    """
    order = rng.permutation(len(weights))
    places = np.cumsum(weights[order])
    places[-1] = total = math.fsum(weights)  # the same whatever the order
    points = np.arange(rng.random(), max(1.0, total), 1.0)
    found = np.minimum(np.searchsorted(places, points, side="right"), len(order) - 1)
    drawn: np.ndarray = order[np.unique(found)]
    return drawn
