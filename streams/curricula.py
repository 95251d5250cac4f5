"""Orders that need no model: as given, reversed, random, explicit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Curriculum, Stream
from cl_platform.errors import CurriculumError


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


class All(Curriculum):
    """Every order there is: as many curricula in a sweep, and none in a single run.

    Args:
        limit: more orders than this are refused.
    """

    limit: PositiveInt = 720

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        orders = math.factorial(count(stream, self))
        raise CurriculumError(
            f"curriculum 'all' stands for {orders} orders: give it as an axis of a sweep, or one "
            "order such as 2,0,1"
        )

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        n = count(stream, self)
        if math.factorial(n) > self.limit:
            raise CurriculumError(
                f"curriculum 'all' stands for {math.factorial(n)} orders of {n} {self.level}: more "
                f"than its limit of {self.limit}; raise curriculum.limit or order fewer"
            )
        return [
            {"name": "explicit", "order": list(order), "level": self.level}
            for order in itertools.permutations(range(n))
        ]
