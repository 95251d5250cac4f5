"""Curricula from the training data: designed, by difficulty, by distance, by superclass."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Curriculum, Stream
from cl_platform.errors import CurriculumError
from streams.curricula import designer
from streams.curricula.distances import (
    Difficulty,
    Distance,
    Items,
    difficulties,
    distances,
    items_of,
    nearest_first,
)


class _Featured(Curriculum):
    """An order by features of the training data.

    Args:
        encoder: maps inputs to features; see ``clp list encoders``.
        samples: number of samples of each experience or class that are compared.
    """

    encoder: str | Mapping[str, Any] = "pixels"
    samples: PositiveInt = 100

    def items(self, stream: Stream) -> Items:
        return items_of(stream, self.level, self.encoder, self.samples)


class Designer(_Featured):
    """The order with the highest score of the Curriculum Designer, or that of another rank.

    Source: Singh et al. 2023 (Learning to Learn); see :mod:`streams.curricula.designer`.

    Args:
        distance: between the mean features (``cosine``, ``euclidean``), or the samples (``ot``).
        rank: 1 is the highest score, 2 the next one, -1 the lowest.
        top, bottom: in a sweep, numbers of orders with the highest and the lowest scores.
    """

    distance: Distance = "cosine"
    rank: int = 1
    top: PositiveInt | None = None
    bottom: PositiveInt | None = None

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        if self.top or self.bottom:
            raise CurriculumError(
                "curriculum 'designer' with top or bottom stands for several orders: give it as an "
                "axis of a sweep, or one order by its rank"
            )
        wanted = max(1, abs(self.rank))
        ranked = designer.ranked(self.distances(stream), wanted, worst=self.rank < 0)
        if self.rank == 0 or len(ranked) < wanted:
            most = len(designer.ranked(self.distances(stream), sys.maxsize))
            raise CurriculumError(
                f"curriculum.rank={self.rank}: give a number from 1 to {most}, or from -1 to "
                f"{-most} to count from the lowest score"
            )
        return ranked[-1][1]

    def distances(self, stream: Stream) -> np.ndarray:
        """Return the (n, n) distances between the experiences or classes of the stream."""
        return distances(self.items(stream), self.distance)

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        return [float(s) for s in designer.scores(self.distances(stream), np.asarray(orders))]

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        ranks = [*range(1, (self.top or 0) + 1), *range(-1, -(self.bottom or 0) - 1, -1)]
        given = {"name": "designer", **vars(self), "top": None, "bottom": None}
        return [{**given, "rank": rank} for rank in ranks]


class EasyFirst(_Featured):
    """From the experience with the lowest error of a simple classifier to that with the highest.

    Args:
        difficulty: ``nearest_mean`` or ``probe``; see
            :func:`streams.curricula.distances.difficulties`.
    """

    difficulty: Difficulty = "nearest_mean"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return [int(i) for i in np.argsort(self.difficulties(stream), kind="stable")]

    def difficulties(self, stream: Stream) -> np.ndarray:
        """Return the classifier's error on the training data of each experience or class, (n,)."""
        return difficulties(self.items(stream), self.difficulty)


class HardFirst(EasyFirst):
    """From the experience with the highest error of a simple classifier to that with the lowest."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return [int(i) for i in np.argsort(-self.difficulties(stream), kind="stable")]


class SimilarChain(_Featured):
    """Next is always the experience that is most similar to the one before.

    Args:
        distance: between the mean features (``cosine``, ``euclidean``), or the samples (``ot``).
        start: the first one; None takes the one that is most similar to all others.
    """

    distance: Distance = "cosine"
    start: NonNegativeInt | None = None
    _sign = 1  # of the distance that is smallest between neighbours

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        matrix = distances(self.items(stream), self.distance)
        start = int((self._sign * matrix.mean(1)).argmin()) if self.start is None else self.start
        if start >= len(matrix):
            raise CurriculumError(f"curriculum.start={start}: give 0 to {len(matrix) - 1}")
        return nearest_first(matrix, start, self._sign)


class DistantChain(SimilarChain):
    """Next is always the experience that is least similar to the one before.

    Args:
        distance: between the mean features (``cosine``, ``euclidean``), or the samples (``ot``).
        start: the first one; None takes the one that is least similar to all others.
    """

    _sign = -1


class Interleaved(Curriculum):
    """The superclasses of the data set take turns, each with its next experience."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        queues = list(self._by_superclass(stream).values())
        longest = max(map(len, queues))
        return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]

    def _by_superclass(self, stream: Stream) -> dict[str, list[int]]:
        """Group items by superclass, in their order; that of most classes for an experience."""
        if not stream.superclasses:
            raise CurriculumError(
                f"stream {stream.name!r} has no superclasses: give split-cifar100, split-clinc150 "
                "or split-omniglot, or another curriculum"
            )
        of = stream.superclasses
        names = list(of)
        if self.level == "experiences":
            counts = [Counter(of[c] for c in e.classes) for e in stream.experiences]
            names = [counter.most_common(1)[0][0] for counter in counts]
        found: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            found.setdefault(name, []).append(i)
        return found


class Blocked(Interleaved):
    """One superclass after the other, each with all of its experiences."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return [i for queue in self._by_superclass(stream).values() for i in queue]
