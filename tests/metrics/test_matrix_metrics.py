"""Metrics by hand, on a matrix small enough to be worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import BadInput
from cl_platform.metrics.matrix_metrics import compute_metrics, intransigence

# Columns: three experiences. The first is best after the second step, so that the definitions of
# forgetting (from the best) and of backward transfer (from right after learning) differ.
R = AccuracyMatrix(
    [
        [0.10, 0.20, 0.30],
        [0.80, 0.25, 0.30],
        [0.90, 0.70, 0.40],
        [0.50, 0.60, 0.95],
    ],
    experience_ids=("a", "b", "c"),
)


ALPHA, BETA = (0.50 + 0.60 + 0.95) / 3, 0.80 - 0.50
F = 2 * ALPHA / (ALPHA * BETA + 1)
BY_HAND = {
    "average_accuracy": (0.50 + 0.60 + 0.95) / 3,
    "average_incremental_accuracy": (0.80 + (0.90 + 0.70) / 2 + (0.50 + 0.60 + 0.95) / 3) / 3,
    "forgetting": ((0.90 - 0.50) + (0.70 - 0.60)) / 2,
    "forgetting_since_learned": ((0.80 - 0.50) + (0.70 - 0.60)) / 2,
    "forgetting_from_best": ((0.90 - 0.50) + (0.70 - 0.60)) / 2,
    "forgetting_consecutive": ((0.80 - 0.90) + ((0.90 - 0.50) + (0.70 - 0.60)) / 2) / 2,
    "backward_transfer": ((0.50 - 0.80) + (0.60 - 0.70)) / 2,
    "forward_transfer": ((0.25 - 0.20) + (0.40 - 0.30)) / 2,
    "learning_accuracy": (0.80 + 0.70 + 0.95) / 3,
    "first_task_retention": 0.50 / 0.80,
    "curriculum.alpha": ALPHA,
    "curriculum.beta": BETA,
    "curriculum.f": F,
    "curriculum.f_above_floor": F - 2 * (1 / 3) / (1 / 3 + 1),
    "mtil.transfer": (0.25 + (0.30 + 0.40) / 2) / 2,
    "mtil.average": (0.80 + 0.25 + 0.30 + 0.90 + 0.70 + 0.40 + 0.50 + 0.60 + 0.95) / 9,
    "mtil.last": ALPHA,
}


def test_by_hand() -> None:
    found = compute_metrics(R)
    assert {k: v for k, v in found.items() if k[:9] != "few_shot."} == pytest.approx(
        BY_HAND, abs=1e-12
    )


def test_intransigence_matches_columns_by_identity() -> None:
    joint = AccuracyMatrix([[0, 0, 0]] + [[0.97, 0.9, 0.85]] * 3, experience_ids=("c", "a", "b"))
    expected = ((0.90 - 0.80) + (0.85 - 0.70) + (0.97 - 0.95)) / 3
    assert intransigence(R, joint) == pytest.approx(expected)


def test_forgetting_may_be_negative_and_looks_before_the_last_row_only() -> None:
    better = AccuracyMatrix([[0, 0], [0.6, 0], [0.9, 0.8]])
    assert compute_metrics(better)["forgetting"] == pytest.approx(-0.3)


def test_one_experience_has_no_forgetting() -> None:
    metrics = compute_metrics(AccuracyMatrix([[0.1], [0.9]]))
    assert metrics["average_accuracy"] == 0.9
    for name in ("forgetting", "backward_transfer", "forward_transfer"):
        assert math.isnan(metrics[name])


def test_retention_of_nothing_is_undefined() -> None:
    assert math.isnan(compute_metrics(AccuracyMatrix([[0.0], [0.0]]))["first_task_retention"])


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (0, 0), (4,)])
def test_a_matrix_needs_the_row_before_training(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"expected \(T\+1, T\)"):
        AccuracyMatrix(np.zeros(shape))


def test_matrices_are_equal_by_bits_and_labels() -> None:
    same = AccuracyMatrix(R.values.copy(), experience_ids=R.experience_ids)
    nudged = AccuracyMatrix(np.nextafter(R.values, 2), experience_ids=R.experience_ids)
    assert same == R
    assert nudged != R
    assert AccuracyMatrix(R.values, experience_ids=("x", "b", "c")) != R


def test_definitions_of_forgetting_differ_where_the_last_row_is_best() -> None:
    better = AccuracyMatrix([[0, 0], [0.5, 0], [0.8, 0.9]])
    assert compute_metrics(better)["forgetting"] == pytest.approx(-0.3)
    assert compute_metrics(better)["forgetting_since_learned"] == pytest.approx(-0.3)
    assert compute_metrics(better)["forgetting_from_best"] == 0
    assert compute_metrics(better)["forgetting_consecutive"] == pytest.approx(-0.3)


def test_what_two_definitions_have_in_common() -> None:
    assert compute_metrics(R)["forgetting_since_learned"] == pytest.approx(
        -compute_metrics(R)["backward_transfer"]
    )


def collapsed(alpha: float, beta: float, n: int = 5) -> AccuracyMatrix:
    """A matrix with the given average accuracy and loss of the first experience."""
    values = np.zeros((n + 1, n))
    values[-1] = alpha
    values[1, 0] = alpha + beta
    return AccuracyMatrix(values)


@pytest.mark.parametrize(
    ("alpha", "beta", "f"), [(0.2, 1, 1 / 3), (0.2, 0.98, 0.334448), (1, 0, 2), (0.5, 0.5, 0.8)]
)
def test_f_of_a_curriculum(alpha: float, beta: float, f: float) -> None:
    """Golden values: 2 alpha / (alpha beta + 1)."""
    r = collapsed(alpha, beta)
    assert compute_metrics(r)["curriculum.alpha"] == pytest.approx(alpha)
    assert compute_metrics(r)["curriculum.beta"] == pytest.approx(beta)
    assert compute_metrics(r)["curriculum.f"] == pytest.approx(f, abs=1e-6)


def test_f_of_complete_forgetting_is_its_floor() -> None:
    """With T experiences: only the last one is known, and the first one is lost altogether."""
    for n in (2, 5, 10):
        values = np.zeros((n + 1, n))
        values[np.arange(1, n + 1), np.arange(n)] = 1.0
        assert compute_metrics(AccuracyMatrix(values))["curriculum.f_above_floor"] == pytest.approx(
            0
        )
    assert compute_metrics(collapsed(1, 0))["curriculum.f_above_floor"] == pytest.approx(2 - 1 / 3)
