"""The effects of pairs: how well "which of two is learned first" foretells orders not tried.

A linear model of an outcome has one effect for each pair of items, i before j. It is fitted on some
of a study's orders and judged on others, for more and more orders and many random splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cl_platform.metrics.registry import metrics
from cl_platform.metrics.statistics import Interval
from cl_platform.report.orders.study import DIGITS, PointStudy

FORETOLD = ("average_accuracy", "forgetting")
SPLITS = 50  # random ones, with a fixed seed
LEFT_OUT = 0.25  # of the orders, to judge by
SIZES = 8  # numbers of orders that are tried
MARGIN = 0.05  # of R squared, that is given away for fewer orders
PENALTIES = np.logspace(-8, 2, 21)  # of ridge regression, times the number of orders


@dataclass(frozen=True, eq=False)
class PairEffects:
    """A linear model of pair effects, and how well it foretold the orders left out.

    Args:
        effects: (n, n) what the outcome has more where i comes before j than where it comes after,
            fitted on all orders; antisymmetric, nan for pairs that stand one way round only.
        sizes: numbers of orders fitted on, ascending.
        fits: R squared for each size, on the same orders left out: mean over the splits, and what
            95 % of them lie in. It is 1 - their mean squared error over the variance of all orders:
            1 for foresight without fault, 0 and less for none.
        enough: the fewest orders from which on R squared stays within MARGIN of that of the most,
            by the means; with what 95 % of the splits say. None where even the most foretell less
            than MARGIN.
    """

    effects: np.ndarray
    sizes: Sequence[int]
    fits: Sequence[Interval]
    enough: Interval | None


def pair_effects(orders: np.ndarray, outcome: np.ndarray) -> PairEffects | None:
    """Fit the effects of pairs on parts of the orders and judge them by others.

    Args:
        orders: (N, n) as learned; outcome: (N,) of each.

    Returns:
        None with fewer than :func:`fewest` orders, and where the outcome is nan or does not vary.
    """
    if len(orders) < fewest(orders) or np.isnan(outcome).any():
        return None
    variance = float(outcome.var())
    if variance <= 10.0 ** (-2 * DIGITS):
        return None
    x = _design(orders)
    most = len(orders) - round(LEFT_OUT * len(orders))
    sizes = np.unique(np.geomspace(max(4, fewest(orders) // 4), most, SIZES).round()).astype(int)
    rng = np.random.default_rng(0)
    splits = (rng.permutation(len(orders)) for _ in range(SPLITS))
    fits = 1 - np.array([_errors(x, outcome, split, sizes) for split in splits]) / variance
    return PairEffects(
        _matrix(orders, _ridge(x, outcome)[0]),
        sizes.tolist(),
        [_over_splits(mean, each) for mean, each in zip(fits.mean(0), fits.T, strict=True)],
        _enough(fits, sizes),
    )


def fewest(orders: np.ndarray) -> int:
    """Return how many orders the model takes: two for each pair, and for their mean."""
    return 2 * (_free(orders) + 1)


def pair_sentences(
    point: PointStudy, found: Mapping[str, PairEffects | None], items: Sequence[str]
) -> str:
    """Return what the pairs of a point say about accuracy and forgetting, in plain English."""
    n = len(point.orders)
    if n < fewest(point.orders):
        every = "all " if n == math.factorial(len(items)) else ""
        return (
            f"{point.point}: {every}{n} orders are too few to fit the effects of the "
            f"{_free(point.orders)} pairs and to judge them; that takes {fewest(point.orders)}."
        )
    told = [_sentence(metrics()[name].title, n, one) for name, one in found.items() if one]
    if not told:
        return f"{point.point}: there is nothing to foretell, all orders give the same."
    return f"{point.point}: {' '.join(told)}{_largest(found.get(FORETOLD[0]), items)}"


def _sentence(title: str, n: int, found: PairEffects) -> str:
    most, best = found.sizes[-1], found.fits[-1]
    if found.enough is None:
        return (
            f"which of two comes first does not foretell {title} "
            f"(R\N{SUPERSCRIPT TWO} {best.value:.2f} with {most} of {n} orders)."
        )
    enough = found.enough
    fit = found.fits[list(found.sizes).index(int(enough.value))]
    return (
        f"{enough.value:.0f} of {n} orders [{enough.low:.0f}, {enough.high:.0f}] are enough to "
        f"foretell {title} of the others by which of two comes first "
        f"(R\N{SUPERSCRIPT TWO} {fit}; with {most} orders {best.value:.2f})."
    )


def _largest(found: PairEffects | None, items: Sequence[str]) -> str:
    """Name the pair that moves accuracy most, where the pairs foretell it."""
    if found is None or found.enough is None:
        return ""
    i, j = divmod(int(np.nanargmax(found.effects)), len(found.effects))
    gain = 100 * found.effects[i, j]
    return f" Most counts {items[i]} before {items[j]}: {gain:+.1f} points of accuracy."


def _free(orders: np.ndarray) -> int:
    """Return the number of pairs that stand both ways round."""
    return int((np.ptp(_design(orders), axis=0) > 0).sum())


def _design(orders: np.ndarray) -> np.ndarray:
    """Return 1/2 where i comes before j, else -1/2: (N, n) -> (N, n (n - 1) / 2)."""
    places = np.argsort(orders, axis=1)
    first, second = _pairs(orders.shape[1])
    return np.where(places[:, first] < places[:, second], 0.5, -0.5)


def _pairs(n: int) -> tuple[list[int], list[int]]:
    pairs = list(combinations(range(n), 2))
    return [i for i, _ in pairs], [j for _, j in pairs]


def _matrix(orders: np.ndarray, effects: np.ndarray) -> np.ndarray:
    n = orders.shape[1]
    found = np.full((n, n), np.nan)
    told = np.where(np.ptp(_design(orders), axis=0) > 0, effects, np.nan)
    found[_pairs(n)] = told
    found[_pairs(n)[::-1]] = -told
    return found


def _errors(x: np.ndarray, y: np.ndarray, split: np.ndarray, sizes: np.ndarray) -> list[float]:
    """Return the mean squared error on the last orders of a split, for each size of the first."""
    test = split[sizes[-1] :]
    fitted = [_ridge(x[split[:size]], y[split[:size]]) for size in sizes]
    return [float(((x[test] @ effects + mean - y[test]) ** 2).mean()) for effects, mean in fitted]


def _ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return effects and intercept, with the penalty that is best when each order is left out.

    Source: Golub, Heath & Wahba 1979, for the error of leaving one out from a single fit.
    """
    means = x.mean(0)
    u, s, v = np.linalg.svd(x - means, full_matrices=False)
    shrink = s**2 / (s**2 + len(y) * PENALTIES[:, None])  # (penalties, rank)
    projected = u.T @ (y - y.mean())
    residual = y - y.mean() - (shrink * projected) @ u.T  # (penalties, N)
    leverage = 1 / len(y) + shrink @ (u**2).T
    best = int((((residual / (1 - leverage)) ** 2).mean(1)).argmin())
    scaled = s / (s**2 + len(y) * PENALTIES[best])
    effects = v.T @ (scaled * projected)
    return effects, float(y.mean() - means @ effects)


def _enough(fits: np.ndarray, sizes: np.ndarray) -> Interval | None:
    """Return from which size on R squared stays within the margin of the last: (splits, sizes)."""
    if fits[:, -1].mean() < MARGIN:
        return None
    return _over_splits(
        _from_on(fits.mean(0), sizes), np.array([_from_on(each, sizes) for each in fits])
    )


def _from_on(fits: np.ndarray, sizes: np.ndarray) -> float:
    short = np.flatnonzero(fits < fits[-1] - MARGIN)
    return float(sizes[short[-1] + 1 if len(short) else 0])


def _over_splits(value: float, each: np.ndarray) -> Interval:
    low, high = np.quantile(each, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
