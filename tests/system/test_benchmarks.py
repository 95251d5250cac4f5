"""The cases of the benchmarks that start other processes, at their smallest size."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import reports, start_up
from benchmarks.measure import Effort

TINY = Effort(1, "tiny")


def test_start_up_is_measured_in_its_parts() -> None:
    parts = start_up.once()
    assert parts["wall"] > parts["training and evaluation"] > 0
    assert parts["torch's import"] > 0
    assert len(parts) == 4


def test_reports_are_measured() -> None:
    rows = reports.measure(TINY)
    assert [row.unit for row in rows] == [" s", " s", " MB"]
    assert all(value > 0 for row in rows for value in row.values)
    assert rows[-1].values[0] > 1  # MB: a page of runs, with what draws its charts


@pytest.mark.slow
def test_a_study_by_ray_tune_is_measured_beside_a_sweep(real_data: Path) -> None:
    module: Any = import_module("benchmarks.cases.ray_tune")
    rows = module.measure(TINY)
    assert all(value > 0 for row in rows for value in row.values)
    assert any(row.goal for row in rows)
