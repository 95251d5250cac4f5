"""Curricula that need no data; those that use features are in ``designed.py``.

A new curriculum is a class whose annotated attributes are its parameters and whose call returns an
order, and an entry point that names it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Curriculum, Stream
from cl_platform.errors import CurriculumError


class AsGiven(Curriculum):
    """The order of the stream itself."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(count(stream, self))


class Reverse(Curriculum):
    """The reverse of the stream's order."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(count(stream, self))[::-1]


class Random(Curriculum):
    """A uniformly random order.

    Args:
        seed: of the order alone; None takes the seed of the run.
        n: in a sweep, the number of different orders, the same ones in every run.
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
        length = count(stream, self)
        if self.n > (orders := math.factorial(length)):
            raise CurriculumError(
                f"curriculum.n={self.n}: {length} {self.level} have {orders} orders"
            )
        rng = np.random.default_rng(self.seed or 0)
        drawn: dict[tuple[int, ...], None] = {}  # a set that keeps the order of drawing
        while len(drawn) < self.n:
            drawn[tuple(int(i) for i in rng.permutation(length))] = None
        return [_explicit(self, order) for order in drawn]


class Explicit(Curriculum):
    """An order that is written down: ``--curriculum 2,0,1`` or ``curriculum=[2, 0, 1]``.

    Args:
        order: each experience (or class) once, by number from 0.
    """

    order: Sequence[int]

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        again = [k for k, n in Counter(self.order).items() if n > 1]
        if again and self.level == "experiences":
            text = ",".join(map(str, self.order))
            missing = sorted({*range(len(stream))} - {*self.order})
            absent = f" and {missing[0]} is missing" if missing else ""
            raise CurriculumError(
                f"curriculum {text:.60}: an order has each experience once; {again[0]} comes again"
                f"{absent}. To learn some again: --stream repeating --set stream.inner=NAME "
                f"--set 'stream.order=[{text:.60}]'"
            )
        return self.order


class All(Curriculum):
    """All orders: as many curricula in a sweep, and an error in a single run.

    Args:
        limit: the largest number of orders that is allowed.
        mirrored: count an order and its reverse as two; if not, only the one that begins with the
            lower number is taken.
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
                f"curriculum 'all' stands for {orders} orders of {n} {self.level}: more than its "
                f"limit of {self.limit}; raise curriculum.limit or order fewer"
            )
        return [
            _explicit(self, order)
            for order in itertools.permutations(range(n))
            if self.mirrored or order[0] <= order[-1]
        ]


def count(stream: Stream, curriculum: Curriculum) -> int:
    """Return the number of items that the curriculum orders: experiences or classes."""
    return stream.n_classes if curriculum.level == "classes" else len(stream)


def _explicit(curriculum: Curriculum, order: Sequence[int]) -> dict[str, Any]:
    return {"name": "explicit", "order": list(order), "level": curriculum.level}
