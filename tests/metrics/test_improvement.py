"""Profiles, the probability of improvement and practical equivalence: by hand, against scipy and the
numbers of other packages, and in simulations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cl_platform.errors import BadInput
from cl_platform.metrics.improvement import (
    Equivalence,
    equivalence_over_streams,
    performance_profile,
    practical_equivalence,
    probability_of_improvement,
)
from cl_platform.metrics.statistics import Interval

Z = stats.norm.ppf(0.975)


def shares(found: Equivalence) -> list[float]:
    return [found.worse, found.alike, found.better]


# --- profiles


def test_a_profile_by_hand_counts_each_stream_alike() -> None:
    found = performance_profile([[0.2, 0.4, 0.6], [0.5]], [0.1, 0.3, 0.5, 0.6])
    assert found.value == pytest.approx([1, (2 / 3 + 1) / 2, (1 / 3 + 0) / 2, 0])
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert found.low.min() >= 0
    assert found.high.max() <= 1


def test_the_bounds_of_one_stream_are_wilsons() -> None:
    found = performance_profile([[1, 2, 3, 4, 5]], [0, 1.5, 3.5, 9])
    for i, k in enumerate((5, 4, 2, 0)):
        expected = stats.binomtest(k, 5).proportion_ci(method="wilson")
        assert [found.low[i], found.high[i]] == pytest.approx([*expected], abs=1e-12)


def test_streams_of_one_size_count_as_all_their_runs() -> None:
    found = performance_profile([[1, 2, 3, 4], [3, 4, 5, 6]], [2.5])
    expected = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert [found.low[0], found.high[0]] == pytest.approx([*expected])
    fewer = performance_profile([[1, 2, 3, 4], [3, 6]], [2.5])
    assert fewer.low[0] < found.low[0]


def test_bands_hold_the_share_more_often_than_resamples_do() -> None:
    levels, taus, rng = np.linspace(0.4, 0.6, 3), [0.42, 0.5, 0.58], np.random.default_rng(0)
    true = stats.norm.sf((np.array(taus) - levels[:, None]) / 0.05).mean(0)
    hits, resampled = [], []
    for study in rng.normal(levels[:, None], 0.05, (300, 3, 3)):
        found = performance_profile(study.tolist(), taus)
        hits.append((found.low <= true) & (true <= found.high))
        drawn = study[np.arange(3)[:, None], rng.integers(3, size=(200, 3, 3))]
        low, high = np.quantile((drawn[..., None] > taus).mean((1, 2)), [0.025, 0.975], axis=0)
        resampled.append((low <= true) & (true <= high))
    assert np.mean(hits, axis=0).min() > 0.95
    assert np.mean(resampled, axis=0).max() < 0.85


# --- the probability of improvement


def test_pairs_of_runs_are_counted_and_ties_are_halves() -> None:
    assert probability_of_improvement([[1, 2, 3]], [[2, 2]]).value == 0.5
    assert probability_of_improvement([[2, 3]], [[1, 2, 3]]).value == pytest.approx(4 / 6)
    both = probability_of_improvement([[1, 2, 3], [2, 3]], [[2, 2], [1, 2, 3]])
    assert both.value == pytest.approx((1 / 2 + 4 / 6) / 2)
    u = stats.mannwhitneyu([2, 3], [1, 2, 3]).statistic / 6
    assert u == pytest.approx(4 / 6)


def test_bounds_are_as_far_off_as_their_own_variance_allows() -> None:
    """Hanley & McNeil's variance at the bound, in its own form; Newcombe 2006, method 5."""
    found = probability_of_improvement([[1, 4, 6, 7, 9]], [[0, 2, 3, 5, 8]])
    for bound in (found.low, found.high):
        q1, q2 = bound / (2 - bound), 2 * bound**2 / (1 + bound)
        rest = 4 * (q1 - bound**2) + 4 * (q2 - bound**2)
        variance = (bound * (1 - bound) + rest) / 25
        assert abs(found.value - bound) == pytest.approx(Z * math.sqrt(variance))


def test_the_other_way_round_is_the_mirror_image() -> None:
    a, b = [[0.5, 0.7, 0.9], [0.2, 0.4]], [[0.6, 0.8], [0.1, 0.3, 0.5]]
    one, other = probability_of_improvement(a, b), probability_of_improvement(b, a)
    mirrored = [1 - other.value, 1 - other.high, 1 - other.low]
    assert [one.value, one.low, one.high] == pytest.approx(mirrored)


def test_runs_that_are_all_better_are_no_certainty() -> None:
    found = probability_of_improvement([[4, 5, 6]], [[1, 2, 3]])
    assert (found.value, found.high) == (1, 1)
    assert 0.4 < found.low < 0.6  # three of three: one of twenty orders of six runs
    assert probability_of_improvement([[4, 5, 6]] * 9, [[1, 2, 3]] * 9).low > 0.85
    assert np.isnan(performance_profile([[1.0], [math.nan]], [0.5]).value).all()
    nothing = probability_of_improvement([[math.nan]], [[1.0]])
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


@pytest.mark.parametrize(("shift", "seeds", "streams"), [(0, 5, 1), (2, 3, 3), (1, 5, 4)])
def test_the_interval_holds_the_probability_about_as_often_as_it_says(
    shift: float, seeds: int, streams: int
) -> None:
    rng, true = np.random.default_rng(0), stats.norm.cdf(shift / math.sqrt(2))
    found = list[Interval]()
    for _ in range(200):
        a, b = rng.normal(shift, 1, (streams, seeds)), rng.normal(0, 1, (streams, seeds))
        found.append(probability_of_improvement(a.tolist(), b.tolist()))
    assert 0.91 <= np.mean([i.low <= true <= i.high for i in found]) <= 0.99


# --- practical equivalence

DIFFERENCES = [0.01, 0.03, 0.02, 0.05, -0.01, 0.004]
BAYCOMP = {0.01: [0, 0.28282, 0.71718], 0.03: [0, 0.95512, 0.04488]}  # 50000 draws, seed 0


def test_on_a_stream_it_is_students_posterior() -> None:
    found = practical_equivalence(DIFFERENCES, rope=0.01)
    mean, error = np.mean(DIFFERENCES), np.std(DIFFERENCES, ddof=1) / math.sqrt(6)
    posterior = stats.t(5, mean, error)
    expected = [posterior.cdf(-0.01), posterior.cdf(0.01) - posterior.cdf(-0.01)]
    assert shares(found) == pytest.approx([*expected, posterior.sf(0.01)])
    assert shares(found) == pytest.approx([0.0122387, 0.2038738, 0.7838875], abs=1e-6)  # baycomp


def test_over_streams_it_is_the_signed_rank_test_of_baycomp() -> None:
    for rope, expected in BAYCOMP.items():
        assert shares(equivalence_over_streams(DIFFERENCES, rope)) == pytest.approx(
            expected, abs=0.015
        )


def test_either_is_turned_round_with_its_differences() -> None:
    turned = [-d for d in DIFFERENCES]
    assert shares(practical_equivalence(turned)) == pytest.approx(
        shares(practical_equivalence(DIFFERENCES))[::-1]
    )
    assert shares(equivalence_over_streams(turned)) == pytest.approx(
        shares(equivalence_over_streams(DIFFERENCES))[::-1], abs=0.01
    )
    assert equivalence_over_streams(turned) == equivalence_over_streams(turned[::-1])


def test_what_has_no_noise_says_nothing_but_that_it_is_the_same() -> None:
    assert practical_equivalence([0.0, 0.0]) == Equivalence(0, 1, 0)
    for nothing in ([0.02], [0.02, 0.02], [0.01, math.nan]):
        assert np.isnan(shares(practical_equivalence(nothing))).all()
    assert np.isnan(shares(equivalence_over_streams([math.nan, 1.0]))).all()
    assert equivalence_over_streams([0.0] * 3) == Equivalence(0, 1, 0)


def test_it_is_as_rarely_wrong_as_it_says() -> None:
    """A difference at the edge of what matters is called better with 95 % in 5 % of studies."""
    studies = np.random.default_rng(0).normal(0.01, 0.01, (2000, 5))
    said = [practical_equivalence(one).better > 0.95 for one in studies]
    assert 0.035 < np.mean(said) < 0.065


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: performance_profile([], [0.5]), "groups of shape none: "),
        (lambda: performance_profile([[1.0], []], [0.5]), r"groups of shape \(1,\), \(0,\): "),
        (lambda: probability_of_improvement([[1.0]], [[1.0], [2.0]]), "1 and 2 groups: "),
        (lambda: practical_equivalence([]), r"groups of shape \(0,\): "),
        (lambda: practical_equivalence([0.1], rope=-0.1), "rope=-0.1: "),
        (lambda: equivalence_over_streams([0.1], rope=0), "rope=0: "),
        (lambda: equivalence_over_streams([0.1], rope=1), "rope=1: "),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}[^\n]*$"):
        call()
