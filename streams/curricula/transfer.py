"""Curricula from an affinity: a directed matrix of how much each experience helps the others.

With A[i, j] how much it helps to have learned i before j, as an
:class:`~cl_platform.core.order.affinity.Affinity` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, Literal

import numpy as np
from pydantic import NonNegativeInt

from cl_platform import Curriculum, Stream
from cl_platform.core.order.affinity import affinity_of, ask
from cl_platform.errors import CurriculumError
from streams.curricula.designer import EXHAUSTIVE

DIGITS = 12  # beyond which scores are equal


class Directed(Curriculum):
    """An order of experiences by an affinity.

    Args:
        affinity: a name or a section; see ``clp list affinities``.
    """

    affinity: str | Mapping[str, Any] = "logme"

    def matrix(self, stream: Stream) -> np.ndarray:
        """Return A[source, target], (T, T), with a zero diagonal: the same one for all seeds.

        Raises:
            ClpError: there is no such affinity, or it fails.
        """
        if self.level == "classes":
            raise CurriculumError(
                "curriculum.level=classes: an affinity is between experiences; leave level out"
            )
        return ask(stream, affinity_of(self.affinity))


class Scored(Directed):
    """One that gives every order a score; it takes the order with the highest."""

    def gains(self, matrix: np.ndarray) -> np.ndarray:
        """Return G, (T, T): an order's score is the sum of G[i, j] over all i that precede j."""
        return matrix

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return ranked(self.gains(self.matrix(stream)), 1)[0][1]

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        return scores(self.gains(self.matrix(stream)), np.asarray(orders)).tolist()  # type: ignore[no-any-return]


class LinearOrdering(Scored):
    """The order with the largest sum of A[i, j] over all pairs with i before j.

    It is exact for up to 8 experiences; for more it is the best of a local search.

    Source: Schiavinotto & Stützle 2004 (the linear ordering problem; search by insertions).
    """


class UsefulFirst(Scored):
    """From the experience that helps the others most, on average, to the one that helps least.

    An order's score is the sum over experiences of this usefulness, times those that follow.
    """

    def gains(self, matrix: np.ndarray) -> np.ndarray:
        return np.repeat(usefulness(matrix)[:, None], len(matrix), axis=1)

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return _sorted(-usefulness(self.matrix(stream)))


class TransferChain(Directed):
    """Next is always the experience that those before it help most.

    Args:
        start: the first one; None takes the one that helps the others most.
        help: of those before: their ``mean``, or that of the best one (``max``).
    """

    start: NonNegativeInt | None = None
    help: Literal["mean", "max"] = "mean"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        matrix = self.matrix(stream)
        start = _sorted(-usefulness(matrix))[0] if self.start is None else self.start
        if start >= len(matrix):
            raise CurriculumError(f"curriculum.start={start}: give 0 to {len(matrix) - 1}")
        order, left = [start], [i for i in range(len(matrix)) if i != start]
        while left:
            helped = self._help(matrix[np.ix_(order, left)], axis=0)
            order.append(left.pop(int(np.round(helped, DIGITS).argmax())))
        return order

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        """Return the sum over experiences of how much those before help each."""
        matrix = self.matrix(stream)
        return [
            sum(float(self._help(matrix[list(order[:k]), order[k]])) for k in range(1, len(order)))
            for order in orders
        ]

    def _help(self, values: np.ndarray, axis: int | None = None) -> Any:
        return values.max(axis) if self.help == "max" else values.mean(axis)


class Towards(Directed):
    """To one experience, by way of those that help it: the more, the nearer to the end.

    Args:
        target: the name or the index of the experience that stands last.
        best: where the one that helps it most stands: just before it (``last``), or ``first``.
    """

    target: int | str
    best: Literal["last", "first"] = "last"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        target = self._index([e.name for e in stream.experiences])
        sign = 1 if self.best == "last" else -1
        order = _sorted(sign * self.matrix(stream)[:, target])
        return [*(i for i in order if i != target), target]

    def _index(self, names: Sequence[str]) -> int:
        given = str(self.target)
        if given in names:  # a name may be a number
            return names.index(given)
        if given.isdecimal() and int(given) < len(names):
            return int(given)
        listed = ", ".join(f"{i} ({name:.20})" for i, name in enumerate(names[:5]))
        raise CurriculumError(
            f"curriculum.target={given:.60}: give the name or the index of an experience: {listed}"
            + (", ..." if len(names) > 5 else "")
        )


def usefulness(matrix: np.ndarray) -> np.ndarray:
    """Return how much each experience helps the others on average, (T,)."""
    n = len(matrix)
    return np.asarray((matrix.sum(1) - matrix.diagonal()) / max(1, n - 1))


def scores(gains: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the sum of gains[i, j] over all i before j in each order, (m, n) int -> (m,)."""
    orders = np.atleast_2d(orders)
    total = np.zeros(len(orders))
    for k in range(orders.shape[1] - 1):
        total += gains[orders[:, k, None], orders[:, k + 1 :]].sum(1)
    return total


def ranked(gains: np.ndarray, k: int, worst: bool = False) -> list[tuple[float, list[int]]]:
    """Return the `k` orders with the highest (or lowest) scores, the most extreme first.

    For up to 8 items all orders are scored; for more the end of a local search and what one
    insertion makes of it. Orders with equal scores are sorted by their items.
    """
    sign, n = -1 if worst else 1, len(gains)
    orders = np.array(
        list(permutations(range(n))) if n <= EXHAUSTIVE else _near(_searched(sign * gains))
    )
    found = scores(gains, orders)
    best = np.argsort(-sign * np.round(found, DIGITS), kind="stable")[:k]
    return [(float(found[i]), [int(c) for c in orders[i]]) for i in best]


def _searched(gains: np.ndarray) -> list[int]:
    """Return an order whose score no insertion of one item elsewhere raises, by the best ones."""
    order = _sorted(gains.sum(0) - gains.sum(1))  # what gives more than it takes stands in front
    places = np.arange(len(order))
    while True:
        before = gains[np.ix_(order, order)]  # [a, b]: what the item at a gives that at b
        ahead = before - before.T
        total = ahead.cumsum(1)
        back = total.diagonal()[:, None] - total  # gained by moving a back to b
        moved = np.where(places >= places[:, None], back, back + ahead)
        if moved.max() < 10.0**-DIGITS:
            return order
        a, b = (int(i) for i in np.unravel_index(moved.round(DIGITS).argmax(), moved.shape))
        order.insert(b, order.pop(a))


def _near(order: Sequence[int]) -> list[tuple[int, ...]]:
    """Return an order and all that the insertion of one item elsewhere makes of it, sorted."""
    found = {tuple(order)}
    for a in range(len(order)):
        rest = [*order[:a], *order[a + 1 :]]
        found |= {(*rest[:b], order[a], *rest[b:]) for b in range(len(order))}
    return sorted(found)


def _sorted(values: np.ndarray) -> list[int]:
    """Return the indices from the smallest value to the largest; equal ones by index."""
    return [int(i) for i in np.argsort(np.round(values, DIGITS), kind="stable")]
