"""How much better: shares of runs above a score, how often one strategy beats another, and whether
their difference matters in practice.

Scores come in groups, one per stream; more is better. Bounds of a share are where it is as far off
as the variance at the bound allows (score intervals), as if all streams had the same one: where
they differ there is less noise, and the bounds are wider than they had to be. They are not
resampled: with few seeds a resample of runs that are all above a score, or all better, shows no
noise at all, and its intervals hold the truth far more seldom than they say (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cl_platform.errors import BadInput
from cl_platform.metrics.statistics import LEVEL, ROUNDING, Interval

Vector = Sequence[float] | np.ndarray
Groups = Sequence[Vector]
"""A strategy's scores: one group of runs per stream."""

ROPE = 0.01  # one point of accuracy
PRIOR = 0.5  # the weight of a stream without a difference beside observed ones, as in baycomp
SAMPLES = 20_000
HALVINGS = 40  # of an interval from 0 to 1: to 1e-12


@dataclass(frozen=True, eq=False)
class Profile:
    """The share of runs with a score above each of some, with pointwise 95 % bounds; (n,) each."""

    taus: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Equivalence:
    """Probabilities that a difference is below, within and above what matters; nan if unknown."""

    worse: float
    alike: float
    better: float


def performance_profile(groups: Groups, taus: Vector) -> Profile:
    """Return the share of runs whose score is above tau, averaged over streams, for each tau.

    Pointwise bounds are for other seeds of the same streams: Wilson's. All nan if a score is not
    finite.

    Source: Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice".

    Raises:
        BadInput: there is no group, or one without values.
    """
    points, parts = np.asarray(taus, float), _checked(groups)
    share = np.mean([(part[:, None] > points).mean(0) for part in parts], axis=0)
    if not all(np.isfinite(part).all() for part in parts):
        share = np.full_like(share, math.nan)
    runs = len(parts) ** 2 / sum(1 / len(part) for part in parts)  # all, if streams have as many
    return Profile(points, share, *_wilson(share, runs))


def probability_of_improvement(a: Groups, b: Groups) -> Interval:
    """Return how often a run of `a` is better than one of `b`, a tie counting half.

    The mean over streams of the probability for any two runs, with a 95 % interval for other seeds
    of the same streams. Runs of both count as independent: where a seed moves both alike, the
    interval is wider than it had to be.

    Source: Agarwal et al. 2021; the interval is method 5 of Newcombe 2006.

    Raises:
        BadInput: there is no group, one without values, or their numbers differ.
    """
    ours, theirs = _checked(a), _checked(b)
    if len(ours) != len(theirs):
        raise BadInput(f"{len(ours)} and {len(theirs)} groups: give both the same streams")
    if not all(np.isfinite(part).all() for part in (*ours, *theirs)):
        return Interval(math.nan, math.nan, math.nan)
    pairs = list(zip(ours, theirs, strict=True))
    share = float(np.mean([np.heaviside(x[:, None] - y, 0.5).mean() for x, y in pairs]))
    n, m = np.array([(len(x), len(y)) for x, y in pairs], float).T
    return Interval(share, _bound(share, 0.0, n, m), _bound(share, 1.0, n, m))


def practical_equivalence(differences: Vector, rope: float = ROPE) -> Equivalence:
    """Return the probabilities that the mean difference on a stream is below, within, above +-rope.

    The posterior of the mean under a flat prior, from differences of pairs of runs: Student's t.
    Runs of other seeds on one stream are independent: its correlation, which is for folds that
    share training data, is 0. All nan for a single pair, and where all differences are the same,
    but for 0: there is no noise to measure them by.

    Source: Benavoli et al. 2017, "Time for a change", the Bayesian correlated t test.

    Raises:
        BadInput: there is no difference, or the rope is not between 0 and 1.
    """
    from scipy.special import stdtr  # scipy.stats takes a millisecond for each

    (x,), rope = _checked([differences]), checked_rope(rope)
    spread = float(np.ptp(x))
    if not x.any() and len(x) > 1:
        return Equivalence(0.0, 1.0, 0.0)
    if len(x) < 2 or not np.isfinite(x).all() or spread <= ROUNDING * np.abs(x).max():
        return Equivalence(math.nan, math.nan, math.nan)
    error = x.std(ddof=1) / math.sqrt(len(x))
    worse = float(stdtr(len(x) - 1, (-rope - x.mean()) / error))
    better = float(stdtr(len(x) - 1, (x.mean() - rope) / error))
    return Equivalence(worse, max(0.0, 1 - worse - better), better)


def equivalence_over_streams(differences: Vector, rope: float = ROPE) -> Equivalence:
    """Return the probabilities that the difference on another stream is most likely below, within,
    above +-rope, from one mean difference per stream.

    Posterior draws of a Dirichlet process whose prior is one half of a stream without a difference.

    Source: Benavoli et al. 2017, the Bayesian signed-rank test.

    Raises:
        BadInput: there is no difference, or the rope is not between 0 and 1.
    """
    (x,), rope = _checked([differences]), checked_rope(rope)
    if not np.isfinite(x).all():
        return Equivalence(math.nan, math.nan, math.nan)
    z = np.concatenate([[0.0], np.sort(x)])
    sums = z[:, None] + z
    above, below = (np.heaviside(sign * sums - 2 * rope, 0.5) for sign in (1, -1))
    weights = np.random.default_rng(0).dirichlet([PRIOR, *[1.0] * len(x)], SAMPLES)
    better, worse = (((weights @ each) * weights).sum(1) for each in (above, below))
    most = np.argmax([worse, 1 - worse - better, better], axis=0)
    return Equivalence(*(float(share) for share in np.bincount(most, minlength=3) / SAMPLES))


def _checked(groups: Groups) -> list[np.ndarray]:
    parts = [np.asarray(group, float) for group in groups]
    if not parts or not all(part.ndim == 1 and part.size for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts[:5]) or "none"
        raise BadInput(f"groups of shape {shapes}: give lists of numbers, one at least in each")
    return parts


def checked_rope(rope: float) -> float:
    """Return a difference that does not matter, as it is given.

    Raises:
        BadInput: it is not between 0 and 1.
    """
    if not 0 < rope < 1:
        raise BadInput(f"rope={rope:g}: give what does not matter as a fraction, 0.01 for a point")
    return rope


def _wilson(share: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of shares of n runs, within 0 and 1. Source: Wilson 1927."""
    z2 = _normal() ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)


def _bound(share: float, end: float, n: np.ndarray, m: np.ndarray) -> float:
    """Return the furthest P(X > Y) towards an end that is as near as its own variance allows.

    Args:
        n, m: (streams,) numbers of runs of either.
    """
    z2, outside, inside = _normal() ** 2, end, share
    for _ in range(HALVINGS):
        p = (outside + inside) / 2
        by_runs = ((n + m) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))
        variance = float((p * (1 - p) * (1 + by_runs) / (n * m)).mean()) / len(n)
        if (share - p) ** 2 > z2 * variance:
            outside = p
        else:
            inside = p
    return outside


def _normal() -> float:
    """Return how many standard deviations of a normal number the level's half reaches."""
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))
