"""Metrics of what was not learned, and those normalised by chance, by hand-checked examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cl_platform.core.matrix import AccuracyMatrix, chances
from cl_platform.metrics.matrix_metrics import compute_metrics, guarded
from cl_platform.metrics.normalised import (
    low_shot_transfer,
    normalised_forgetting,
    normalised_transfer,
    probe_accuracy,
)
from cl_platform.metrics.registry import find_metric
from cl_platform.metrics.zero_shot import adapted_and_held_out

MTIL = [[0.1, 0.1, 0.1], [0.8, 0.3, 0.2], [0.7, 0.9, 0.25], [0.6, 0.85, 0.95]]


def two(*rows: list[float], **facts: Any) -> AccuracyMatrix:
    """Two columns of two classes each, a and b, by their rows."""
    given = {"experience_ids": ("a", "b"), "chances": (0.5, 0.5), **facts}
    return AccuracyMatrix(np.array(rows), **given)


def test_transfer_average_and_last_of_mtil() -> None:
    found = compute_metrics(AccuracyMatrix(MTIL))
    assert found["mtil.transfer"] == pytest.approx(0.2625)
    assert found["mtil.average"] == pytest.approx(0.616667, abs=1e-6)
    assert found["mtil.last"] == pytest.approx(0.8)


def test_columns_held_out_are_no_part_of_mtil() -> None:
    wider = np.c_[MTIL, np.full(4, 0.99)]
    found = compute_metrics(AccuracyMatrix(wider, held_out=(3,)))
    assert found["mtil.transfer"] == pytest.approx(0.2625)
    assert found["mtil.average"] == pytest.approx(0.616667, abs=1e-6)


def test_transfer_of_mtil_takes_the_rows_that_there_are() -> None:
    values = np.array(MTIL)[[0, 2, 3]]
    found = compute_metrics(AccuracyMatrix(values, rows=(0, 2, 3)))
    assert found["mtil.transfer"] == pytest.approx(0.25)  # the third alone has a row before it
    assert math.isnan(compute_metrics(AccuracyMatrix([[0.1], [0.9]]))["mtil.transfer"])


def test_knowledge_accumulated_and_retained_in_fomo() -> None:
    """40 sets by accuracy and one by recall at 5 are adapted to; 20 and 2 are held out."""
    last = [0.7] * 40 + [0.5] + [0.6] * 20 + [0.4] * 2
    rows = [[0.0] * 63, *[last] * 41]
    found = compute_metrics(AccuracyMatrix(rows, held_out=tuple(range(41, 63))))
    assert found["knowledge_accumulation"] == pytest.approx(0.695122, abs=1e-6)
    assert found["zero_shot_retention"] == pytest.approx(0.581818, abs=1e-6)
    assert found["accumulation_and_retention"] == pytest.approx(0.635952, abs=1e-6)


def test_nothing_is_retained_where_nothing_is_held_out() -> None:
    found = compute_metrics(AccuracyMatrix(MTIL))
    assert not {"knowledge_accumulation", "zero_shot_retention"} & found.keys()
    assert np.isnan(adapted_and_held_out(AccuracyMatrix(MTIL))).all()


def test_the_trajectory_has_a_point_for_each_row() -> None:
    r = AccuracyMatrix([[0, 0, 0.5], [1, 0, 0.4], [0.8, 1, 0.3]], held_out=(2,))
    np.testing.assert_allclose(adapted_and_held_out(r), [[0, 0.5], [0.5, 0.4], [0.9, 0.3]])


def test_forgetting_and_transfer_of_climb() -> None:
    r = two([0.5, 0.5], [0.62, 0.5], [0.56, 0.62])
    assert normalised_forgetting(r) == pytest.approx(0.5)  # 62, then 56, chance 50
    assert normalised_transfer(r, {"a": 0.9, "b": 0.6}) == pytest.approx(0.2)  # 62, alone 60
    assert normalised_transfer(r, {"a": 0.9, "b": 0.62}) == pytest.approx(0)
    assert normalised_forgetting(two([0.5, 0.5], [0.62, 0.5], [0.5, 0.9])) == pytest.approx(1)


def test_what_is_not_above_chance_is_said_and_normalises_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metric = find_metric("normalised_transfer")
    r = two([0.5, 0.5], [0.62, 0.5], [0.56, 0.62])
    assert math.isnan(guarded(metric, r, {"b": 0.4}))
    assert math.isnan(guarded(metric, r, {"b": 0.5}))
    (line,) = capsys.readouterr().err.splitlines()
    assert "'normalised_transfer' is nan: an experience is learned alone" in line
    assert math.isnan(guarded(metric, r, {}))  # no reference, and so no word of it
    assert math.isnan(normalised_forgetting(AccuracyMatrix(MTIL)))  # no chance is known
    assert math.isnan(normalised_forgetting(two([0.5, 0.5], [0.4, 0.5], [0.5, 0.9])))
    one_class = two([1, 1], [1, 1], [1, 1], chances=(1.0, 1.0))
    assert math.isnan(normalised_forgetting(one_class))  # by itself, without a line


def test_chance_is_one_of_the_classes_that_may_be_predicted() -> None:
    classes = [(0, 1), (2, 3, 4), (5,)]
    assert chances("task", classes, 6) == (1 / 2, 1 / 3, 1)
    assert chances("all", classes, 6, (2,)) == (1 / 6,) * 3
    assert chances("seen", classes, 6, (2,)) == (1 / 5,) * 3
    assert AccuracyMatrix(np.zeros((3, 3)), held_out=(2,), chances=(0.5, 0.2, 1)).trained().chances


def test_probes_are_compared_with_those_before_training() -> None:
    nan = math.nan
    probes = two([nan, 0.6], [nan, 0.65], held_out=(1,))
    assert probe_accuracy(probes) == pytest.approx(0.65)
    assert low_shot_transfer(probes) == pytest.approx(0.5)
