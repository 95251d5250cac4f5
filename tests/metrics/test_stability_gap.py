"""The stability gap by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cl_platform.metrics.measured import Measurements, measured
from cl_platform.metrics.stability_gap import Curves, largest_drop

NAN = math.nan
# Two experiences, three measurements in each, after a first one: A falls to .2 and comes back.
A = [0.5, 0.9, 0.2, 0.6, 0.8]
B = [NAN, NAN, 0.3, 0.4, 0.7]
OLD = [[False, False], [False, False], [True, False], [True, False], [True, False]]


def stability_gap(curves: Curves) -> dict[str, float]:
    """Return every metric of the curves by name."""
    return measured(Measurements("seen", {}, curves=curves))


def test_by_hand() -> None:
    found = stability_gap(Curves(np.array([A, B]).T, np.array(OLD)))
    assert found["min_accuracy"] == pytest.approx(0.2)
    assert found["worst_case_accuracy"] == pytest.approx(0.7 / 2 + 0.2 / 2)
    assert found["windowed_forgetting_10"] == pytest.approx((0.7 + 0) / 2)
    assert found["windowed_plasticity_10"] == pytest.approx((0.6 + 0.4) / 2)
    assert found["windowed_forgetting_100"] == found["windowed_forgetting_10"]


def test_three_experiences() -> None:
    """min-ACC counts from the end of each: .6 of the first, .1 of the second."""
    values = np.array([[0.1, NAN, NAN], [0.6, 0.5, NAN], [0.9, 0.1, 0.8], [0.7, 0.4, 0.2]])
    old = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], bool)
    found = stability_gap(Curves(values, old))
    assert found["min_accuracy"] == pytest.approx((0.6 + 0.1) / 2)
    assert found["worst_case_accuracy"] == pytest.approx((0.6 + 0.1 + 0.2) / 3)


def test_one_that_comes_again_counts_as_it_is_now() -> None:
    """A, B, A: while A is learned again its accuracy is no worst case."""
    values = np.array([[0.9, NAN], [0.3, 0.8], [0.1, 0.6], [0.7, 0.5]])
    old = np.array([[0, 0], [1, 0], [0, 1], [0, 1]], bool)
    found = stability_gap(Curves(values, old))
    assert found["min_accuracy"] == pytest.approx(0.5)
    assert found["worst_case_accuracy"] == pytest.approx((0.7 + 0.5) / 2)


def test_a_single_experience_has_a_worst_case_and_no_minimum() -> None:
    found = stability_gap(Curves(np.array([[0.2], [0.6]]), np.zeros((2, 1), bool)))
    assert math.isnan(found["min_accuracy"])
    assert found["worst_case_accuracy"] == 0.6
    assert found["windowed_forgetting_10"] == 0
    assert found["windowed_plasticity_10"] == pytest.approx(0.4)


def test_windows_by_hand() -> None:
    values = np.array([0.9, 0.7, 0.5, 0.6, 0.1])
    assert largest_drop(values, 1) == 0
    assert largest_drop(values, 2) == pytest.approx(0.5)  # .6 to .1
    assert largest_drop(values, 3) == pytest.approx(0.5)
    assert largest_drop(values, 4) == pytest.approx(0.6)  # .7 to .1
    assert largest_drop(values, 5) == largest_drop(values, 99) == pytest.approx(0.8)
    assert largest_drop(-values, 2) == pytest.approx(0.1)
    assert largest_drop(np.array([0.4]), 10) == 0


def test_windows_by_another_computation() -> None:
    rng = np.random.default_rng(0)
    for window in (2, 5, 10):
        values = rng.random(40)
        pairs = [(m, n) for n in range(40) for m in range(max(0, n - window + 1), n)]
        assert largest_drop(values, window) == max(0, *(values[m] - values[n] for m, n in pairs))
