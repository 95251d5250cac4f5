"""Few-shot metrics by hand, and by numbers of published tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.metrics.few_shot import session_accuracies
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.report.leaderboard import measures_of
from cl_platform.report.runs import read_runs
from cl_platform.results.result import Result

# CIFAR-100, 60 classes and 8 sessions of 5: prototypes of a ViT-B/16, FSCIL_RESEARCH's README.
PUBLISHED = [78.92, 77.17, 76.57, 74.72, 74.44, 73.72, 73.51, 72.40, 71.43]


def of(
    table: list[list[float]], sizes: tuple[int, ...], **more: tuple[int, ...]
) -> dict[str, float]:
    found = compute_metrics(AccuracyMatrix(table, sizes=sizes, **more))
    return {k.removeprefix("few_shot."): v for k, v in found.items() if k.startswith("few_shot.")}


def test_accuracies_are_pooled_over_samples_and_not_over_experiences() -> None:
    """60 classes at 0.8 and 5 at 0.4, each of 100 test images."""
    matrix = AccuracyMatrix([[0, 0], [0.9, 0], [0.8, 0.4]], sizes=(6000, 500))
    np.testing.assert_allclose(session_accuracies(matrix), [0.9, 0.769231], atol=5e-7)


def test_the_numbers_of_a_published_row() -> None:
    """Each session as if all its classes were equally well known."""
    rows = [[0.0] * 9, *([accuracy / 100] * 9 for accuracy in PUBLISHED)]
    found = of(rows, (6000, *[500] * 8))
    assert 100 * found["performance_drop"] == pytest.approx(7.49)
    assert 100 * found["average_accuracy"] == pytest.approx(74.7644, abs=5e-5)
    assert 100 * found["last_accuracy"] == pytest.approx(71.43)


def test_the_harmonic_mean_of_base_and_new() -> None:
    found = of([[0, 0], [0.8, 0], [0.72, 0.70]], (6000, 500))
    assert 100 * found["harmonic_mean"] == pytest.approx(70.9859, abs=5e-5)
    assert (found["base_accuracy"], found["new_accuracy"]) == (0.72, 0.70)
    assert of([[0, 0], [0.8, 0], [0.0, 0.0]], (6000, 500))["harmonic_mean"] == 0


def test_new_accuracy_is_pooled_and_the_base_is_what_was_learned_first() -> None:
    rows = [[0, 0, 0], [0.1, 0.9, 0.2], [0.1, 0.8, 0.6], [0.5, 0.7, 0.4]]
    found = of(rows, (100, 1000, 300), visits=(1, 2, 0))
    assert found["base_accuracy"] == 0.7
    assert found["new_accuracy"] == pytest.approx((0.5 * 100 + 0.4 * 300) / 400)
    last = (0.5 * 100 + 0.7 * 1000 + 0.4 * 300) / 1400
    assert found["performance_drop"] == pytest.approx(0.9 - last)
    middle = (0.8 * 1000 + 0.6 * 300) / 1300
    assert found["average_accuracy"] == pytest.approx((0.9 + middle + last) / 3)


def test_rows_that_are_left_out_and_columns_that_are_held_out_do_not_count() -> None:
    rows = [[0, 0, 0.1], [0.8, 0.4, 0.3]]
    found = of(rows, (6000, 500, 10_000), rows=(0, 2), held_out=(2,))
    assert found["last_accuracy"] == found["average_accuracy"] == pytest.approx(0.769231, abs=5e-7)
    assert math.isnan(found["performance_drop"])  # nothing was measured after the base


def test_what_is_pooled_is_unknown_without_numbers_of_samples() -> None:
    found = of([[0, 0], [0.8, 0], [0.72, 0.70]], ())
    assert found.pop("base_accuracy") == 0.72
    assert all(map(math.isnan, found.values()))


def test_a_run_of_few_shots_shows_them_and_others_do_not(tmp_path: Path) -> None:
    stream = {"name": "split-digits", "experiences": [4, 3, 3], "shots": [20, 5]}
    settings = {"strategy": "finetune", "out": tmp_path, "sinks": []}
    few, plain = (clp.run(stream=s, **settings) for s in (stream, {**stream, "shots": None}))
    sizes = few.matrix.sizes
    assert sizes == tuple(e["test_samples"] for e in few.experiences)
    right = few.matrix.values[-1] @ np.array(sizes) / sum(sizes)
    assert few.metrics["few_shot.last_accuracy"] == pytest.approx(right)
    again = compute_metrics(Result.load(few.path).matrix)
    assert {k: v for k, v in few.metrics.items() if k in again} == again
    assert "few_shot.harmonic_mean" in few.shown_metrics()
    of_few_shots = {name for name in few.metrics if "few_shot" in name}
    assert of_few_shots == {name for name in plain.metrics if "few_shot" in name}
    assert not any(name.startswith("few_shot") for name in plain.shown_metrics())
    runs = read_runs(tmp_path)
    assert "performance drop" in [m.name for m in measures_of(runs)]
    without = replace(runs, results=[plain])
    assert "performance drop" not in [m.name for m in measures_of(without)]
