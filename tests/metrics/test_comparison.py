"""Comparisons of strategies, against scipy, all resamples, published examples and simulations."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cl_platform.errors import BadInput
from cl_platform.metrics.bounds import SHARE, SIGNED
from cl_platform.metrics.comparison import (
    against_best,
    bootstrap_mean,
    bounded_mean,
    compare,
    interquartile_mean,
    paired,
)
from cl_platform.metrics.ranking import Ranking, rank
from cl_platform.metrics.statistics import Interval, holm, mean_interval

DRAWS = 2000


def numbers(found: Interval) -> list[float]:
    return [found.value, found.low, found.high]


def by_seed(values: Any) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


def coverage(interval: Callable[[np.ndarray], Interval], samples: np.ndarray, true: float) -> float:
    """How often the interval of a row holds the true value."""
    found = [interval(row) for row in samples]
    return float(np.mean([f.low <= true <= f.high for f in found]))


# --- the mean over seeds


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_the_interval_holds_the_mean_of_normal_values_as_often_as_it_says(n: int) -> None:
    samples = np.random.default_rng(n).normal(3, 2, (DRAWS, n))
    assert 0.93 <= coverage(bootstrap_mean, samples, 3) <= 0.97


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_interval_holds_the_mean_of_accuracies_near_1_as_often_as_it_says(n: int) -> None:
    samples = np.random.default_rng(n).beta(8, 2, (DRAWS, n))
    assert 0.93 <= coverage(bootstrap_mean, samples, 0.8) <= 0.97


SHARES = {"at 0.95": (40, 2), "at 0.99": (200, 2), "at 0.4": (80, 120), "at 0.5, wide": (1, 1)}


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("kind", SHARES)
def test_an_interval_within_bounds_holds_the_mean_as_often_as_it_says(kind: str, n: int) -> None:
    a, b = SHARES[kind]
    samples = np.random.default_rng(n).beta(a, b, (DRAWS, n))
    found = coverage(lambda x: bounded_mean(x, SHARE), samples, a / (a + b))
    assert 0.93 <= found <= 0.975
    if kind == "at 0.95" and n == 3:
        assert found > coverage(mean_interval, samples, a / (a + b)) + 0.01


def test_an_interval_of_shares_is_within_its_bounds_and_mirrored() -> None:
    x = np.random.default_rng(0).beta(30, 1, (200, 3))
    for values in (*x, [1.0, 1.0, 0.0], [1.0, 1 - 1e-15, 0.5], [1e-300, 0.0]):
        found, other = bounded_mean(values, SHARE), bounded_mean(1 - np.array(values), SHARE)
        assert 0 <= found.low <= found.value <= found.high <= 1
        mirrored = [1 - other.value, 1 - other.high, 1 - other.low]
        assert numbers(found) == pytest.approx(mirrored, abs=1e-12)
    assert numbers(bounded_mean([1.0, 1.0], SHARE)) == [1, 1, 1]
    assert math.isnan(bounded_mean([0.5], SHARE).low)


def test_far_from_its_bounds_an_interval_of_shares_is_students() -> None:
    x = 0.5 + 1e-4 * np.random.default_rng(0).normal(size=6)
    assert numbers(bounded_mean(x, SHARE)) == pytest.approx(numbers(mean_interval(x)), abs=1e-9)


def test_other_bounds_cut_what_is_beyond_them() -> None:
    x, whole = [0.9, 0.2], bootstrap_mean([0.9, 0.2])
    assert whole.low < -1 < 1 < whole.high
    assert numbers(bounded_mean(x, SIGNED)) == [whole.value, -1, 1]
    assert bounded_mean(x, None) == whole
    assert bounded_mean([2.0, 0.2], SHARE) == bootstrap_mean([2.0, 0.2]), "it is no share"
    gain = paired({0: 0.9, 1: 0.3}, {0: 0.1, 1: 0.2}, SHARE)
    assert numbers(gain.difference) == [pytest.approx(0.45), -1, 1]


@pytest.mark.parametrize(("n", "least"), [(5, 0.85), (20, 0.92)])
def test_strong_skew_costs_coverage_and_less_than_students_interval(n: int, least: float) -> None:
    samples = np.random.default_rng(n).chisquare(1, (DRAWS, n))
    found = coverage(bootstrap_mean, samples, 1)
    assert least < found < 0.955
    assert found > coverage(mean_interval, samples, 1) + 0.02


def test_percentile_intervals_would_not_do_for_few_seeds() -> None:
    """Why the bootstrap is studentised."""
    samples = np.random.default_rng(0).normal(0, 1, (DRAWS, 5))
    rows = np.random.default_rng(1).integers(5, size=(1000, 5))
    low, high = np.quantile(samples[:, rows].mean(2), [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.87


@pytest.mark.parametrize("n", [5, 6])
def test_resamples_stand_for_all_of_them(n: int) -> None:
    every = np.array(list(product(range(n), repeat=n)))
    for seed in range(5):
        x = np.random.default_rng(seed).random(n)
        with np.errstate(divide="ignore", invalid="ignore"):  # resamples of a single value
            t = (x[every].mean(1) - x.mean()) / x[every].std(1)
        t = np.where(x[every].std(1) < 0.1 * x.std(), np.copysign(np.inf, t), t)
        few, many = np.quantile(t, [0.025, 0.975], method="inverted_cdf")
        low, high = x.mean() - many * x.std(), x.mean() - few * x.std()
        found = bootstrap_mean(x)
        if np.isfinite(high - low):
            assert [found.low, found.high] == pytest.approx([low, high], abs=0.12 * (high - low))
        else:
            assert found == mean_interval(np.sort(x))


def test_for_many_values_it_is_the_interval_of_scipys_bootstrap() -> None:
    x = np.random.default_rng(0).gamma(2, size=400)
    theirs = stats.bootstrap((x,), np.mean, method="BCa", rng=np.random.default_rng(0))
    low, high = theirs.confidence_interval
    expected = pytest.approx([low, high], abs=0.05 * (high - low))
    assert [bootstrap_mean(x).low, bootstrap_mean(x).high] == expected


@pytest.mark.parametrize("n", [2, 3, 4])
def test_below_five_values_the_interval_is_students(n: int) -> None:
    x = np.sort(np.random.default_rng(n).random(n))
    low, high = stats.t.interval(0.95, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert numbers(bootstrap_mean(x)) == pytest.approx([x.mean(), low, high])


@pytest.mark.parametrize(
    "values", [[0.2, 0.2, 0.2, 0.2, 0.3], [1.0, 1.0, 1.0, 1.0, 0.9], [0.2, 0.2, 0.2, 0.21, 0.9]]
)
def test_ties_that_leave_a_bound_at_infinity_give_students_interval(values: list[float]) -> None:
    assert numbers(bootstrap_mean(values)) == pytest.approx(numbers(mean_interval(values)))


def test_the_interval_moves_and_grows_with_its_values_and_turns_with_their_sign() -> None:
    x = np.random.default_rng(0).gamma(2, size=7)
    value, low, high = numbers(bootstrap_mean(x))
    assert low < value < high
    assert high - value > value - low, "the tail is above"
    assert numbers(bootstrap_mean(10 * x + 3)) == pytest.approx(
        [10 * v + 3 for v in (value, low, high)]
    )
    assert numbers(bootstrap_mean(-x)) == pytest.approx([-value, -high, -low])


@pytest.mark.parametrize("n", [2, 5, 30])
def test_equal_values_have_an_interval_without_width(n: int) -> None:
    assert numbers(bootstrap_mean([0.1] * n)) == pytest.approx([0.1] * 3)
    assert bootstrap_mean([0.1] * n).low == bootstrap_mean([0.1] * n).high
    assert numbers(bootstrap_mean([0.0] * n)) == [0, 0, 0]


def test_what_has_no_interval_has_none() -> None:
    assert bootstrap_mean([0.25]).value == 0.25
    assert np.isnan([bootstrap_mean([0.25]).low, bootstrap_mean([0.25]).high]).all()
    for missing in (math.nan, math.inf):
        assert np.isnan(numbers(bootstrap_mean([0.1, missing, 0.3, 0.4, 0.5]))).all()


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 3.0], ids=str)
def test_what_is_no_list_of_values_is_refused_in_one_line(values: Any) -> None:
    with pytest.raises(BadInput, match=r"^values of shape \(.*\): give a list of numbers, [^\n]*$"):
        bootstrap_mean(values)


def test_the_same_values_in_any_order_give_the_same_digits() -> None:
    x = np.random.default_rng(0).random(8)
    first = bootstrap_mean(x)
    np.random.default_rng(5).random(1000)  # whatever else is drawn in between
    assert bootstrap_mean(x[::-1].tolist()) == first


# --- pairs


def test_pairs_by_hand() -> None:
    # Differences 1, 2, 3 of the shared seeds: mean 2, deviation 1, t = 2 sqrt(3). The correction for
    # two degrees of freedom is gamma(1) / (sqrt(1) gamma(1/2)).
    found = paired({0: 2.0, 1: 4.0, 2: 6.0, 8: 50.0}, {2: 3.0, 1: 2.0, 0: 1.0, 9: 70.0})
    assert (found.pairs, found.difference.value) == (3, 2)
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi))
    assert found.p == pytest.approx(1 - math.sqrt(6 / 7))  # Student's distribution at 2 sqrt(3)


@pytest.mark.parametrize("n", [2, 3, 8, 400])
def test_p_of_pairs_is_that_of_scipy(n: int) -> None:
    a, b = np.random.default_rng(n).normal([[0.3], [0]], 1, (2, n))
    found = paired(by_seed(a), by_seed(b))
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.difference == bootstrap_mean(a - b)


def test_the_effect_is_right_on_average_where_the_raw_one_is_too_large() -> None:
    rng, true, draws = np.random.default_rng(0), 0.8, 1000
    d = rng.normal(true, 1, (draws, 5))
    raw = d.mean(1) / d.std(1, ddof=1)
    found = np.array([paired(by_seed(row), by_seed(0 * row)).effect for row in d])
    error = found.std() / math.sqrt(draws)
    assert abs(found.mean() - true) < 3 * error
    assert raw.mean() - true > 5 * error


def test_pairs_the_other_way_round() -> None:
    a, b = (by_seed(row) for row in np.random.default_rng(0).random((2, 6)))
    one, other = paired(a, b), paired(b, a)
    assert numbers(other.difference) == pytest.approx(
        [-one.difference.value, -one.difference.high, -one.difference.low]
    )
    assert (other.effect, other.p) == pytest.approx((-one.effect, one.p))


def test_pairs_without_noise_have_no_test() -> None:
    a = {0: 0.1, 1: 0.2, 2: 0.3}
    same, shifted = paired(a, a), paired({s: v + 0.2 for s, v in a.items()}, a)
    assert (numbers(same.difference), same.p) == ([0, 0, 0], 1.0)
    assert numbers(shifted.difference) == pytest.approx([0.2] * 3)
    assert np.isnan([same.effect, shifted.effect, shifted.p]).all()


def test_rounding_is_no_difference() -> None:
    found = paired({0: 0.1 + 0.2, 1: 0.5, 2: 0.7}, {0: 0.3, 1: 0.5, 2: 0.7})
    assert (numbers(found.difference), found.p) == ([0, 0, 0], 1.0)


def test_a_single_pair_and_an_unfinished_one_have_a_value_at_most() -> None:
    found = paired({0: 0.5}, {0: 0.25})
    assert (found.difference.value, found.pairs) == (0.25, 1)
    assert np.isnan([found.difference.low, found.effect, found.p]).all()
    undefined = paired({0: 0.5, 1: math.nan, 2: 0.1}, {0: 0.25, 1: 0.5, 2: 0.3})
    assert np.isnan([*numbers(undefined.difference), undefined.effect, undefined.p]).all()


def test_pairs_without_a_common_seed_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"^1 and 2 scores without a common seed: [^\n]*$"):
        paired({0: 1.0}, {1: 1.0, 2: 2.0})


# --- against the best


def three_strategies() -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 0.1, 6)
    levels = {"er": 0.6, "der": 0.7, "finetune": 0.2}
    return {k: by_seed(v + seeds + rng.normal(0, 0.05, 6)) for k, v in levels.items()}


def test_the_others_are_compared_with_the_best_and_p_is_corrected_for_all_pairs() -> None:
    scores = three_strategies()
    found = compare(scores)
    assert list(found) == ["er", "finetune"]
    pairs = [("er", "der"), ("finetune", "der"), ("er", "finetune")]
    adjusted = holm([paired(scores[a], scores[b]).p for a, b in pairs])
    for (a, b), p in list(zip(pairs, adjusted, strict=True))[:2]:
        assert found[a] == (paired(scores[a], scores[b]), p)
        assert found[a][0].difference.value < 0


def test_a_best_that_is_given_is_corrected_for_the_others_only() -> None:
    scores = three_strategies()
    found = compare(scores, best="er")
    raw = [paired(scores[name], scores["er"]).p for name in ("der", "finetune")]
    assert [p for _, p in found.values()] == holm(raw)
    assert found["der"][0].difference.value > 0


def test_the_best_is_so_on_what_all_share() -> None:
    easy = {("easy", s): 0.9 + s / 100 for s in range(3)}
    hard = {("hard", s): 0.5 + s / 100 for s in range(3)}
    scores = {"whole": easy | hard, "easy only": {k: v - 0.05 for k, v in easy.items()}}
    found = compare(scores)  # whole has the lower mean over all of its runs
    assert list(found) == ["easy only"]
    assert found["easy only"][0].pairs == 3


def test_a_strategy_without_a_number_is_not_the_best() -> None:
    found = compare({"broken": {0: math.nan, 1: 1.0}, "sound": {0: 0.5, 1: 0.6}})
    assert list(found) == ["broken"]
    assert math.isnan(found["broken"][1])


@pytest.mark.parametrize("given", [False, True], ids=["best by the data", "best given"])
def test_any_false_alarm_is_as_rare_as_the_level(given: bool) -> None:
    rng, alarms, naive = np.random.default_rng(0), 0, 0
    studies = 300
    for _ in range(studies):
        rows = rng.normal(size=(6, 5)) + rng.normal(size=5)
        scores = {str(i): by_seed(row) for i, row in enumerate(rows)}
        found = compare(scores, best="0" if given else None)
        alarms += min(p for _, p in found.values()) <= 0.05
        naive += min(holm([d.p for d, _ in found.values()])) <= 0.05
    assert alarms / studies < 0.075  # 0.05 and two binomial deviations
    if not given:
        assert naive / studies > 0.07, "the reason to correct for all pairs"


def test_a_real_difference_is_found() -> None:
    assert compare(three_strategies())["finetune"][1] < 0.01


@pytest.mark.parametrize(
    ("scores", "best", "message"),
    [
        ({"a": {0: 1.0}, "b": {1: 1.0}}, None, r"^2 strategies without a seed that all share: "),
        ({}, None, r"^0 strategies without a seed that all share: "),
        ({"a": {0: 1.0}, "b": {0: 1.0}}, "c", r"^best 'c': give one of a, b$"),
        ({"a": {0: 1.0}, "b": {1: 1.0}}, "a", r"^1 and 1 scores without a common seed: "),
    ],
    ids=["nothing shared", "nothing", "unknown best", "nothing shared with the best"],
)
def test_what_cannot_be_compared_is_refused(
    scores: dict[str, dict[int, float]], best: str | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        compare(scores, best)


def test_the_best_is_found_where_not_all_share_a_seed() -> None:
    shared = three_strategies()
    best, found = against_best(shared)
    assert found == compare(shared)
    assert best not in found
    apart = {"a": {0: 0.9, 1: 0.8}, "b": {0: 0.5, 2: 0.4}, "c": {1: 0.6, 2: 0.5}, "d": {7: 0.1}}
    best, found = against_best(apart)
    assert (best, {*found}) == ("a", {"b", "c"})  # d has no pair
    assert against_best({"a": {0: math.nan}, "b": {0: 0.1}})[0] == "b"
    with pytest.raises(BadInput, match=r"^no strategy: "):
        against_best({})


def test_one_strategy_has_nobody_to_be_compared_with() -> None:
    assert compare({"er": {0: 0.5}}) == {}


# --- the interquartile mean


@pytest.mark.parametrize("shape", [(1, 4), (3, 5), (4, 7)], ids=str)
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    groups = np.random.default_rng(0).random(shape)
    expected = stats.trim_mean(groups.ravel(), 0.25)
    assert interquartile_mean(groups.tolist()).value == pytest.approx(expected)
    assert interquartile_mean([[1, 2], [3, 100.0]]).value == 2.5


def test_the_interval_of_many_values_is_scipys() -> None:
    x = np.random.default_rng(0).gamma(2, size=300)
    draws: Any = {"method": "percentile", "rng": np.random.default_rng(0)}
    theirs = stats.bootstrap((x,), lambda v, axis: stats.trim_mean(v, 0.25, axis=axis), **draws)
    low, high = theirs.confidence_interval
    found = interquartile_mean([x.tolist()])
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.06 * (high - low))


def test_differences_among_streams_are_no_noise() -> None:
    rng = np.random.default_rng(0)
    groups = np.linspace(0, 1, 5)[:, None] + rng.normal(0, 0.01, (5, 6))
    apart, pooled = interquartile_mean(groups.tolist()), interquartile_mean([groups.ravel()])
    assert apart.value == pooled.value
    assert apart.high - apart.low < (pooled.high - pooled.low) / 5


@pytest.mark.system
@pytest.mark.parametrize(("seeds", "least"), [(3, 0.87), (5, 0.91), (10, 0.92)])
def test_the_interval_holds_the_interquartile_mean_about_as_often_as_it_says(
    seeds: int, least: float
) -> None:
    levels = np.linspace(0.4, 0.6, 5)[:, None]  # symmetric: the mean is the interquartile mean
    studies = levels + np.random.default_rng(seeds).normal(0, 0.05, (400, 5, seeds))
    found = coverage(lambda groups: interquartile_mean(groups.tolist()), studies, 0.5)
    assert least <= found <= 0.98


def test_groups_that_say_nothing_of_noise_have_no_interval() -> None:
    found = interquartile_mean([[1.0, 2.0, 3.0], [4.0]])
    assert found.value == 2.5
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(numbers(interquartile_mean([[1.0, 2.0], [math.nan, 1.0]]))).all()
    assert numbers(interquartile_mean([[0.5] * 3] * 2)) == [0.5] * 3


def test_groups_may_differ_in_size_and_are_drawn_alike_each_time() -> None:
    groups = [[0.1, 0.2, 0.4], [0.3, 0.5], [0.9, 0.7, 0.8, 0.6]]
    found = interquartile_mean(groups)
    assert found.low < found.value < found.high
    assert interquartile_mean([group[::-1] for group in groups]) == found


@pytest.mark.parametrize("groups", [[], [[]], [[1.0, 2.0], []]], ids=str)
def test_groups_without_values_are_refused(groups: list[list[float]]) -> None:
    with pytest.raises(BadInput, match=r"^values of shape \(0,\): "):
        interquartile_mean(groups)


# --- ranks

# Demsar 2006, table 6: AUC of four decision trees on 14 data sets. The ranks are his, as the last
# digits of some scores are not printed.
DEMSAR = {
    "C4.5": [4, 1, 4, 4, 4, 1, 3, 2.5, 4, 2.5, 4, 3, 4, 3],
    "C4.5+m": [3, 2, 1, 1, 2, 2.5, 2, 2.5, 3, 2.5, 2.5, 2, 1, 1],
    "C4.5+cf": [2, 3, 2, 3, 3, 4, 4, 4, 2, 2.5, 1, 4, 2, 4],
    "C4.5+m+cf": [1, 4, 3, 2, 1, 2.5, 1, 1, 1, 2.5, 2.5, 1, 3, 2],
}


def test_the_example_of_demsar() -> None:
    found = rank({name: [-r for r in ranks] for name, ranks in DEMSAR.items()})
    assert found.names == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.ranks == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.groups == (found.names,), "best and worst are 1.18 apart"
    statistic = 12 * 14 / (4 * 5) * (float((found.ranks**2).sum()) - 4 * 25 / 4)
    assert statistic == pytest.approx(9.28, abs=5e-3)
    # scipy corrects for ties, which he does not: one of four, three of two, of 14 data sets.
    ties = 1 - (60 + 3 * 6) / (14 * 4 * 15)
    assert found.p == pytest.approx(stats.chi2.sf(statistic / ties, 3))


@pytest.mark.parametrize(("k", "n"), [(3, 4), (5, 12)])
def test_p_is_friedmans_and_the_difference_nemenyis(k: int, n: int) -> None:
    scores = np.random.default_rng(k).random((k, n))
    found = rank({str(i): row for i, row in enumerate(scores)})
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores).pvalue)
    by_name = dict(zip(found.names, found.ranks, strict=True))
    expected = stats.rankdata(-scores, axis=0).mean(1)
    assert [by_name[str(i)] for i in range(k)] == pytest.approx(expected)
    # Told apart at 5 %: the range of k normal numbers, as mean ranks are when there are many.
    scale = math.sqrt(k * (k + 1) / (12 * n))
    sf = stats.studentized_range.sf(found.critical_difference / scale, k, np.inf)
    assert sf == pytest.approx(0.05, abs=1e-6)
    assert (found.streams, list(found.ranks)) == (n, sorted(found.ranks))


@pytest.mark.parametrize(
    ("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)]
)
def test_the_table_of_critical_values(k: int, q: float) -> None:
    found = rank({str(i): [i, i] for i in range(k)})  # Demsar 2006, table 5a
    assert found.critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / 12), abs=2e-3)


def test_groups_overlap_and_none_is_part_of_another() -> None:
    # Always the same order on 18 streams: ranks 1 to 5, of which neighbours only are within 1.44.
    found = rank({name: [-i] * 18 for i, name in enumerate("abcde")})
    assert found.critical_difference == pytest.approx(2.728 * math.sqrt(5 / 18), abs=1e-3)
    assert found.groups == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    # On 70 streams they are told apart (0.73), on 8 those two places apart are not (2.16).
    assert rank({name: [-i] * 70 for i, name in enumerate("abcde")}).groups == ()
    wider = rank({name: [-i] * 8 for i, name in enumerate("abcde")}).groups
    assert wider == (("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e"))


def test_alike_strategies_share_their_ranks() -> None:
    for k in (2, 4):
        found = rank({str(i): [0.5, 0.7, 0.9] for i in range(k)})  # a warning would be an error
        assert list(found.ranks) == [(k + 1) / 2] * k
        assert (found.p, found.groups) == (1.0, (found.names,))


def test_two_strategies_are_compared_by_wilcoxons_test() -> None:
    a, b = np.random.default_rng(0).random((2, 9))
    found = rank({"a": a, "b": b})
    assert found.p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    # All nine the same way: 2 of 2^9 signs are as extreme.
    assert rank({"a": a + 1, "b": a - np.arange(9)}).p == pytest.approx(2 / 2**9)


def rejections(level: float, streams: int) -> tuple[float, float]:
    """How often equal strategies are told apart: by Friedman's p, by the critical difference."""
    rng, found = np.random.default_rng(0), list[Ranking]()
    for _ in range(200):
        found.append(rank({str(i): row for i, row in enumerate(rng.random((4, streams)))}))
    by_p = np.mean([r.p <= level for r in found])
    return float(by_p), float(np.mean([r.groups != (r.names,) for r in found]))


def test_equal_strategies_are_rarely_told_apart() -> None:
    by_p, by_difference = rejections(0.05, streams=12)
    assert 0.02 < by_p < 0.08
    assert 0.01 < by_difference < 0.08


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"^0 strategies with \[\] scores: "),
        ({"a": [1, 2]}, r"^1 strategies with \[2\] scores: "),
        ({"a": [1], "b": [2]}, r"^2 strategies with \[1\] scores: "),
        ({"a": [], "b": []}, r"^2 strategies with \[0\] scores: "),
        ({"a": [1, 2, 3], "b": [2, 3]}, r"^2 strategies with \[2, 3\] scores: [^\n]*$"),
        ({"a": [1, math.nan], "b": [2, 3]}, r"^a score that is nan has no rank: [^\n]*$"),
    ],
    ids=["nothing", "one strategy", "one stream", "no stream", "ragged", "nan"],
)
def test_what_cannot_be_ranked_is_refused(table: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        rank(table)
