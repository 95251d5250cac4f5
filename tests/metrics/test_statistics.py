"""Statistics of results, against scipy, exact enumeration, examples by hand and simulations."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cl_platform.errors import BadInput
from cl_platform.metrics.statistics import (
    Components,
    Interval,
    components,
    correlation,
    group_test,
    holm,
    mean_interval,
    permutation_p,
    spearman,
)

FEW = 50  # resamples where the number under test does not depend on them


def pairs(n: int, values: int | None = None, m: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of related vectors; with few different values many of them are tied."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(m):
        x = rng.standard_normal(n)
        y = rng.standard_normal(n) + rng.uniform(-2, 2) * x
        if values is not None:
            x, y = np.round(x * values / 4), np.round(y * values / 4)
        found.append((x, y))
    return found


def numbers(found: Interval) -> list[float]:
    return [found.value, found.low, found.high]


# --- correlation


@pytest.mark.parametrize("values", [None, 8, 3], ids=["no ties", "some ties", "many ties"])
@pytest.mark.parametrize("n", [4, 7, 30])
def test_rho_and_tau_are_those_of_scipy(n: int, values: int | None) -> None:
    compared = 0
    for x, y in pairs(n, values):
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        compared += 1
        found = correlation(x, y, FEW)
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert found.tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert compared > 10


def test_rho_is_that_of_scipy_row_by_row() -> None:
    x, y = (np.array(part) for part in zip(*pairs(9, 6), strict=True))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert spearman(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("values", [None, 4], ids=["no ties", "ties"])
def test_p_among_all_permutations_is_that_of_scipy(values: int | None) -> None:
    every = np.array(list(permutations(range(5))))  # as it is comes first
    for x, y in pairs(5, values, m=5):
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        # Two-sided by absolute value; scipy's own two-sided p doubles the smaller tail.
        exact = stats.permutation_test(
            (x,),
            lambda a, y=y: abs(stats.spearmanr(a, y).statistic),
            permutation_type="pairings",
            alternative="greater",
            n_resamples=np.inf,
        ).pvalue
        assert permutation_p(x[every], y) == pytest.approx(exact)


@pytest.mark.parametrize("values", [None, 4], ids=["no ties", "ties"])
def test_shuffling_comes_close_to_all_permutations(values: int | None) -> None:
    every, resamples = np.array(list(permutations(range(5)))), 4000
    compared = 0
    for x, y in pairs(5, values, m=8):
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        compared += 1
        found = correlation(x, y, resamples)
        tau = [abs(stats.kendalltau(x[order], y).statistic) for order in every]
        tau_p = np.mean(np.array(tau) >= tau[0] - 1e-9)
        for estimate, exact in ((found.p, permutation_p(x[every], y)), (found.tau_p, tau_p)):
            noise = math.sqrt(exact * (1 - exact) / resamples)
            assert estimate == pytest.approx(exact, abs=4.5 * noise + 1 / resamples)
    assert compared > 4


def test_p_is_uniform_where_there_is_nothing() -> None:
    rng = np.random.default_rng(0)
    found = [correlation(rng.random(12), rng.random(12), resamples=99) for _ in range(300)]
    for p in (np.array([c.p for c in found]), np.array([c.tau_p for c in found])):
        assert 0.02 < np.mean(p <= 0.05) < 0.09  # 0.05, two binomial deviations and a bit
        assert 0.42 < np.mean(p <= 0.5) < 0.58
        assert stats.kstest(p, "uniform").pvalue > 0.01


def test_no_p_is_smaller_than_one_of_all_shuffles() -> None:
    x = np.arange(30.0)
    for y in (x, -x, x**3):
        found = correlation(x, y, resamples=99)
        assert (found.p, found.tau_p) == (0.01, 0.01)
        assert abs(found.rho) == pytest.approx(1)


def test_a_correlation_the_wrong_way_round_is_as_significant() -> None:
    ((x, y), *_) = pairs(20)
    one, other = correlation(x, y), correlation(x, -y)
    assert other.rho == pytest.approx(-one.rho)
    assert other.tau == pytest.approx(-one.tau)
    assert (other.p, other.tau_p) == (one.p, one.tau_p)


@pytest.mark.parametrize("constant", ["x", "y", "both"])
def test_what_is_constant_correlates_with_nothing(constant: str) -> None:
    x = np.ones(8) if constant != "y" else np.arange(8.0)
    y = np.ones(8) if constant != "x" else np.arange(8.0)
    found = correlation(x, y, FEW)  # a warning would be an error
    assert np.isnan([found.rho, found.p, found.tau, found.tau_p]).all()


def test_an_outcome_that_is_undefined_somewhere_gives_no_number() -> None:
    found = correlation(np.arange(8.0), np.array([1, 2, np.nan, 4, 5, 6, 7, 8]), FEW)
    assert np.isnan([found.rho, found.p, found.tau, found.tau_p]).all()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.arange(4), np.arange(5)),
        (np.arange(2), np.arange(2)),
        (np.zeros(0), np.zeros(0)),
        (np.zeros((3, 3)), np.zeros((3, 3))),
        (np.float64(1), np.float64(1)),
    ],
    ids=["lengths", "two", "none", "matrices", "numbers"],
)
def test_what_cannot_be_correlated_is_refused_in_one_line(x: Any, y: Any) -> None:
    with pytest.raises(BadInput, match=r"^x \(.*\) and y \(.*\): give two vectors [^\n]*$"):
        correlation(x, y)


# --- correction for many tests


def test_holm_by_hand() -> None:
    # Smallest first: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_nan_stays_and_does_not_count() -> None:
    found = holm([math.nan, 0.01, math.nan, 0.03])
    assert found[1::2] == pytest.approx([0.02, 0.03])
    assert np.isnan(found[::2]).all()
    assert np.isnan(holm([math.nan])).all()


def rejected(p: np.ndarray, level: float) -> set[int]:
    """Holm's procedure as he gives it: from the smallest on, until one is not below its level."""
    found: set[int] = set()
    for place, i in enumerate(np.argsort(p, kind="stable")):
        if p[i] > level / (len(p) - place):
            break
        found.add(int(i))
    return found


def test_adjusted_values_are_the_levels_at_which_holm_rejects() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 12):
        for tied in (False, True):
            p = rng.beta(0.3, 2, n)
            p = np.round(p, 1) if tied else p
            adjusted = np.array(holm(p.tolist()))
            assert (adjusted >= p).all()
            for level in rng.random(40):
                assert rejected(p, level) == set(np.flatnonzero(adjusted <= level))


def test_any_false_alarm_at_all_is_as_rare_as_the_level() -> None:
    rng = np.random.default_rng(0)
    alarms = [min(holm(rng.random(10).tolist())) <= 0.05 for _ in range(2000)]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.016)


# --- variance components


def shares(found: Components) -> list[float]:
    return [found.rows.value, found.columns.value, found.interaction.value]


def test_components_of_three_by_two_by_hand() -> None:
    # Mean 4.5, rows 1.5, 4, 8, columns 3, 6. Sums of squares: rows 43, columns 13.5, all 63.5, so
    # that 7 remain; mean squares 21.5, 13.5, 3.5; (21.5 - 3.5) / 2, (13.5 - 3.5) / 3, 3.5.
    found = components(np.array([[1, 2], [3, 5], [5, 11]]), FEW)
    parts = [9, 10 / 3, 3.5]
    assert found.total == pytest.approx(sum(parts))
    assert shares(found) == pytest.approx([part / sum(parts) for part in parts])


def test_rows_and_columns_change_places_with_the_table() -> None:
    table = np.random.default_rng(0).random((6, 4)) + np.arange(6)[:, None]
    one, other = components(table, FEW), components(table.T, FEW)
    assert shares(one) == pytest.approx([shares(other)[i] for i in (1, 0, 2)])
    assert one.total == pytest.approx(other.total)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (np.repeat(np.arange(5.0)[:, None], 3, axis=1), [1, 0, 0]),
        (np.repeat(np.arange(3.0)[None], 5, axis=0), [0, 1, 0]),
        (np.array([[1, -1], [-1, 1]]), [0, 0, 1]),
        (np.eye(6), [0, 0, 1]),
    ],
    ids=["rows", "columns", "checkerboard", "diagonal"],
)
def test_a_table_of_one_part_is_all_of_that_part(table: Any, expected: list[float]) -> None:
    assert shares(components(table, FEW)) == pytest.approx(expected, abs=1e-12)


def test_a_negative_estimate_is_nothing() -> None:
    # Equal means of rows and columns, and a lot between: the moments say less than nothing.
    found = components(np.array([[9.0, 1, 5], [1, 5, 9], [5, 9, 1]]), FEW)
    assert shares(found) == [0, 0, 1]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_shares_add_up_to_one_and_have_no_unit(scale: float) -> None:
    rng = np.random.default_rng(0)
    for n, m in ((2, 2), (6, 2), (24, 3), (5, 9)):
        table = rng.standard_normal((n, m))
        table += rng.standard_normal((n, 1)) + rng.standard_normal((1, m))
        found, scaled = components(table, FEW), components(scale * table + 3 * scale, FEW)
        assert sum(shares(found)) == pytest.approx(1)
        assert shares(scaled) == pytest.approx(shares(found))
        assert scaled.total == pytest.approx(scale**2 * found.total)
        for part in (found.rows, found.columns, found.interaction):
            assert 0 <= part.low <= part.high <= 1


def test_known_components_are_found_on_average() -> None:
    rng, true = np.random.default_rng(0), np.array([4.0, 1.0, 2.0])
    n, m, tables = 24, 10, 300
    estimates = np.empty((tables, 3))
    for k in range(tables):
        rows = 2.0 * rng.standard_normal((n, 1))
        noise = math.sqrt(2) * rng.standard_normal((n, m))
        found = components(7 + rows + rng.standard_normal((1, m)) + noise, resamples=2)
        estimates[k] = np.array(shares(found)) * found.total
    error = estimates.std(0) / math.sqrt(tables)
    assert (np.abs(estimates.mean(0) - true) < 3.5 * error).all()
    assert (error < 0.1 * true).all(), "or the line before would say nothing"


def test_noise_has_no_share_that_is_of_rows() -> None:
    rng = np.random.default_rng(0)
    found = [shares(components(rng.standard_normal((24, 3)), resamples=2)) for _ in range(200)]
    # What is cut off below 0 leaves a little above.
    rows, columns, noise = np.mean(found, axis=0)
    assert rows < 0.1
    assert columns < 0.05
    assert noise > 0.85


def test_the_interval_of_a_share_covers_it_about_as_often_as_it_says() -> None:
    rng, covered, tables = np.random.default_rng(2), 0, 120
    for _ in range(tables):
        table = rng.standard_normal((60, 1)) + rng.standard_normal((60, 4))
        found = components(table, 200).rows  # half of the variance
        covered += found.low <= 0.5 <= found.high
    assert covered / tables > 0.85


@pytest.mark.parametrize(
    "value",
    [
        0.25,
        0.2,
    ],
)
def test_a_constant_table_has_no_shares_and_no_warning(value: float) -> None:
    found = components(np.full((24, 3), value), FEW)  # 0.2: one of five experiences is remembered
    assert (shares(found), found.total) == ([0, 0, 0], 0)
    assert np.isnan([found.rows.low, found.columns.high, found.interaction.low]).all()


@pytest.mark.parametrize(
    "table",
    [
        np.ones((1, 3)),
        np.ones((3, 1)),
        np.ones((0, 2)),
        np.ones(4),
        np.ones((2, 2, 2)),
        np.array([[1, 2], [3, np.nan]]),
    ],
    ids=lambda table: str(table.shape),
)
def test_a_table_that_is_not_full_is_refused_in_one_line(table: Any) -> None:
    with pytest.raises(BadInput, match=r"^a table of shape \(.*\): give a full one, [^\n]*$"):
        components(table)


# --- means


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert numbers(mean_interval(values)) == pytest.approx([values.mean(), low, high])
    assert mean_interval(list(values)) == mean_interval(values)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(3, 2, size=4)) for _ in range(2000)]
    assert np.mean([f.low <= 3 <= f.high for f in found]) == pytest.approx(0.95, abs=0.015)


def test_a_single_value_has_no_interval() -> None:
    found = mean_interval([0.25])
    assert found.value == 0.25
    assert np.isnan([found.low, found.high]).all()


def test_an_interval_reads_with_two_digits() -> None:
    assert str(Interval(0.123, -0.456, 1)) == "0.12 [-0.46, 1.00]"


def test_the_same_numbers_give_the_same_digits() -> None:
    ((x, y), *_) = pairs(20)
    first, table = correlation(x, y, 300), np.outer(x, y)
    spread = components(table, 300)
    np.random.default_rng(5).random(1000)  # whatever else is drawn in between
    assert correlation(x.copy(), y.copy(), 300) == first
    assert components(table.copy(), 300) == spread


# --- groups of rows


def test_a_group_of_one_row_is_tested_like_a_two_way_table() -> None:
    """Where rows add nothing of their own, the test is that of groups against their interaction."""
    cells = np.random.default_rng(0).normal(size=(4, 3))
    rest = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
    ratio = 3 * cells.mean(1).var(ddof=1) / ((rest**2).sum() / 6)
    expected = stats.f.sf(ratio, 3, 6)
    assert group_test(np.repeat(cells[:, None], 5, axis=1)) == pytest.approx(expected)


def test_of_independent_rows_a_group_is_tested_like_by_variance_between_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 5, 1))  # the same on each column
    expected = stats.f_oneway(*rows[:, :, 0]).pvalue
    assert group_test(np.repeat(rows, 3, axis=2)) == pytest.approx(expected)


def test_groups_without_any_chance_differ_or_are_nothing() -> None:
    assert group_test(np.broadcast_to(np.arange(3.0)[:, None, None], (3, 4, 2))) == 0
    assert math.isnan(group_test(np.full((3, 4, 2), 0.7)))
    with pytest.raises(BadInput, match="two of each at least"):
        group_test(np.zeros((3, 1, 2)))
