"""Orders that need no data: as given, reversed, random, explicit, all. Others: ``designed.py``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Curriculum, Stream
from cl_platform.errors import CurriculumError

SMALL = 12  # things with so many orders that a random one is hardly drawn twice


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
        n: in a sweep: so many different orders, the same in every run.
    """

    seed: NonNegativeInt | None = None
    n: PositiveInt | None = None

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        if self.n is not None:
            raise CurriculumError(
                f"curriculum 'random' with n={self.n} stands for several orders: give it as an "
                "axis of a sweep, or leave n out"
            )
        rng = rng if self.seed is None else np.random.default_rng(self.seed)
        return [int(i) for i in rng.permutation(count(stream, self))]

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        if self.n is None:
            return []
        length, seed = count(stream, self), self.seed or 0
        if length <= SMALL and self.n > math.factorial(length):
            raise CurriculumError(
                f"curriculum.n={self.n}: {length} {self.level} have {math.factorial(length)} orders"
            )
        rng, found = np.random.default_rng(seed), dict[tuple[int, ...], None]()
        while len(found) < self.n:
            found.setdefault(tuple(int(i) for i in rng.permutation(length)))
        return [_explicit(self, order) for order in found]


class Explicit(Curriculum):
    """The order that the user wrote down: ``--curriculum 2,0,1`` or ``curriculum=[2, 0, 1]``."""

    order: Sequence[int]

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return self.order


class All(Curriculum):
    """Every order there is: as many curricula in a sweep, and none in a single run.

    Args:
        limit: more orders than this are refused.
        mirrored: whether an order and its reverse are two; without, the one that begins with the
            lower number stands for both.
    """

    limit: PositiveInt = 720
    mirrored: bool = True

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        orders = math.factorial(count(stream, self))
        raise CurriculumError(
            f"curriculum 'all' stands for {orders} orders: give it as an axis of a sweep, or one "
            "order such as 2,0,1"
        )

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        n = count(stream, self)
        orders = math.factorial(n) // (1 if self.mirrored or n < 2 else 2)
        if orders > self.limit:
            raise CurriculumError(
                f"curriculum 'all' stands for {orders} orders of {n} {self.level}: more "
                f"than its limit of {self.limit}; raise curriculum.limit or order fewer"
            )
        return [
            _explicit(self, order)
            for order in itertools.permutations(range(n))
            if self.mirrored or order[0] <= order[-1]
        ]


def _explicit(curriculum: Curriculum, order: Sequence[int]) -> dict[str, Any]:
    return {"name": "explicit", "order": list(order), "level": curriculum.level}
