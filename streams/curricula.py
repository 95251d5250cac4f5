"""Orders that need no model: as given, reversed, random, explicit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import NonNegativeInt

from cl_platform import Curriculum, Stream


def count(stream: Stream, curriculum: Curriculum) -> int:
    """How many things the curriculum orders: experiences or classes."""
    return stream.n_classes if curriculum.level == "classes" else len(stream)


class AsGiven(Curriculum):
    """The order in which the stream gives its experiences."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(count(stream, self))


class Reverse(Curriculum):
    """The last experience first."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(count(stream, self))[::-1]


class Random(Curriculum):
    """A uniformly random order.

    Args:
        seed: of the order alone; None follows the seed of the run.
    """

    seed: NonNegativeInt | None = None

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        rng = rng if self.seed is None else np.random.default_rng(self.seed)
        return [int(i) for i in rng.permutation(count(stream, self))]


class Explicit(Curriculum):
    """The order that the user wrote down: ``--curriculum 2,0,1`` or ``curriculum=[2, 0, 1]``."""

    order: Sequence[int]

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return self.order
