"""The scores of the Curriculum Designer, and the orders they rank highest.

Source: Singh et al. 2023 (Learning to Learn: How to Continuously Teach Humans and Machines), as
their published code computes it. In words: begin with the item that has similar distances to all
others, go on with the one farthest from it, and end with the one nearest to it.

For an order c of n items, distances with rows that add up to 1 (D) and their variances with sum 1
(v), the score is 1 - v[c_0] plus, for i below n/2, 1 - D[c_i, c_(n-1-i)] + D[c_i, c_(i+1)].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

EXHAUSTIVE = 8  # items whose orders are all scored: 40320
BEAM = 256  # partial orders of the beam search, for more items
CANDIDATES = 48  # items tried at either end of each of them


def normalised(distances: np.ndarray) -> np.ndarray:
    """Scale rows to a sum of 1, with zeros on the diagonal."""
    found = np.array(distances, dtype=np.float64)
    np.fill_diagonal(found, 0)
    sums = found.sum(1, keepdims=True)
    return np.asarray(np.divide(found, sums, out=np.zeros_like(found), where=sums > 0))


def variances(distances: np.ndarray) -> np.ndarray:
    """Return the variances of the normalised rows with their zeros, scaled to a sum of 1; (n,)."""
    found = normalised(distances).var(1)
    total = found.sum()
    return np.asarray(found / total if total > 0 else np.full(len(found), 1 / len(found)))


def scores(distances: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the score of each order, (m, n) int -> (m,)."""
    orders = np.atleast_2d(orders)
    d, v, n = normalised(distances), variances(distances), orders.shape[1]
    total = 1 - v[orders[:, 0]]
    for i in range(n // 2):
        here = orders[:, i]
        total += 1 - d[here, orders[:, n - 1 - i]] + d[here, orders[:, i + 1]]
    return np.asarray(total)


def ranked(distances: np.ndarray, k: int, worst: bool = False) -> list[tuple[float, list[int]]]:
    """Return the `k` orders with the highest (or lowest) scores, the most extreme first.

    For up to 8 items all orders are scored, for more those found by a beam search. Orders with
    equal scores are sorted by their items.
    """
    sign = -1 if worst else 1
    n = len(distances)
    orders = np.array(list(permutations(range(n)))) if n <= EXHAUSTIVE else _beam(distances, sign)
    found = scores(distances, orders)
    best = np.argsort(-sign * np.round(found, 12), kind="stable")[:k]
    return [(float(found[i]), [int(c) for c in orders[i]]) for i in best]


@dataclass(frozen=True, eq=False)
class _Beam:
    """Partial orders, filled from both ends inwards, by row: their ends and their scores."""

    first: np.ndarray
    last: np.ndarray
    score: np.ndarray


def _beam(distances: np.ndarray, sign: int) -> np.ndarray:
    d, n = normalised(distances), len(distances)
    start = np.arange(n)[:, None]
    beam = _Beam(start, np.empty((n, 0), dtype=int), sign * (1 - variances(distances)))
    while (left := n - beam.first.shape[1] - beam.last.shape[1]) > 0:
        beam = _widened(beam, sign * d, sign, left)
    rows = np.concatenate([beam.first, beam.last[:, ::-1]], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def _widened(beam: _Beam, d: np.ndarray, sign: int, left: int) -> _Beam:
    """Add an item at either end, or the only one that is left, and keep the best BEAM orders."""
    rows = np.arange(len(beam.score))[:, None]
    away = d[beam.first[:, -1]]  # from the item before: large for the next, small for the last
    away[rows, beam.first] = away[rows, beam.last] = np.nan
    following = _largest(away)
    ending = _largest(-away)
    gain = away[rows, following][:, None, :] + (sign - away[rows, ending])[:, :, None]
    same = following[:, None, :] == ending[:, :, None]
    gain[~same if left == 1 else same] = np.nan
    total = np.where(np.isnan(gain), -np.inf, gain) + beam.score[:, None, None]
    flat = total.ravel()
    k = min(BEAM, int(np.isfinite(flat).sum()))
    best = np.sort(np.argpartition(-flat, k - 1)[:k])
    row, e, f = np.unravel_index(best, total.shape)
    first = np.concatenate([beam.first[row], following[row, f][:, None]], axis=1)
    last = beam.last[row]
    if left > 1:
        last = np.concatenate([last, ending[row, e][:, None]], axis=1)
    return _Beam(first, last, flat[best])


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the columns of the largest values of each row, nan only after all others."""
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), axis=1, kind="stable")
    return np.asarray(order[:, :CANDIDATES])
