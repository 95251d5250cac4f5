"""Runs of a sweep side by side: which they are, and that their results are those of separate ones."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.api import preview
from sweeps.console import plan
from sweeps.executor.lanes import beside, most_lanes
from sweeps.executor.tree import Segment, grow
from sweeps.record import Phase, is_done
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER, planned, spec

ALIGNED = {"name": "blobs", "samples_per_class": 12, "dimensions": 63, "experiences": 3}
BASE = {"stream": ALIGNED, "strategy": "er", "model": {"name": "mlp", "hidden": [16]}}


def joined(segments: list[Segment]) -> list[int]:
    return sorted(len(s.lanes) for root in segments for s in root.walk() if not s.children)


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [
        ({"seed": [0, 1, 2, 3, 4]}, [2, 3]),
        ({"seed": [0, 1], "lr": [0.1, 0.2]}, [4]),
        ({"strategy": ["er", "finetune"], "seed": [0, 1]}, [2, 2]),
        ({"optimizer": [{"momentum": m} for m in (0.5, 0.9)]}, [2]),
        ({"strategy": [{"name": "er", "memory_size": n} for n in (10, 20)]}, [0, 0]),
        ({"batch_size": [10, 20]}, [0, 0]),
        ({"strategy": ["gem"], "seed": [0, 1]}, [0, 0]),  # has no lanes
        ({"epochs": [1]}, [0]),
    ],
)
def test_runs_that_differ_in_numbers_are_joined(axes: dict[str, Any], sizes: list[int]) -> None:
    driver = Here(spec(lanes=4), Path("nowhere"), PLANNER)
    assert joined(driver.beside(grow(planned(axes)))) == sizes


def test_orders_are_joined_behind_what_they_share() -> None:
    order, other = [0, 1, 2], [0, 2, 1]
    axes = {"curriculum": [order, other]}
    (root,) = beside(grow(planned(axes, base={"stream": ALIGNED})), 4, lambda run: True)
    (child,) = root.children
    assert (child.start, child.end, len(child.lanes), child.size) == (1, 3, 2, 4)
    assert len({*child.keys}) == 4


def test_no_worker_is_left_without_work() -> None:
    auto = spec(lanes="auto")
    assert most_lanes(auto, 40, lambda: 2) == 8
    assert most_lanes(auto, 6, lambda: 2) == 3
    assert most_lanes(auto, 3, lambda: 4) == 1
    assert most_lanes(spec(lanes=5), 3, lambda: 4) == 5
    limits: list[dict[str, Any]] = [{"lanes": 1}, {"share": False}]
    for alone in [*limits, {"budget": {"minutes_per_run": 5}}]:
        assert most_lanes(spec(**{"lanes": 8, **alone}), 40, lambda: 1) == 1


def carried_out(out: Path, lanes: int, **more: Any) -> tuple[Here, Phase]:
    given = spec({"seed": [0, 1, 2]}, base={**BASE, **more}, lanes=lanes)
    driver = Here(given, out, PLANNER)
    phase = Phase("runs", planned({"seed": [0, 1, 2]}, base={**BASE, **more}))
    driver.carry_out(phase)
    return driver, phase


def rows(out: Path, phase: Phase) -> list[Any]:
    from cl_platform import Result

    return [Result.load(out / "runs" / run.run_id).matrices for run in phase.runs]  # type: ignore[union-attr]


def test_results_are_those_of_separate_runs(tmp_path: Path) -> None:
    driver, phase = carried_out(tmp_path / "lanes", 3)
    assert phase.tally.done == 3
    assert phase.tally.trained == phase.tally.distinct == 9
    _, alone = carried_out(tmp_path / "alone", 1)
    assert rows(tmp_path / "lanes", phase) == rows(tmp_path / "alone", alone)
    assert not driver.survey(Phase("again", phase.runs))


def test_a_run_that_fails_leaves_those_beside_it_alone(tmp_path: Path) -> None:
    lrs = {"lr": [0.01, 1e30]}
    given = spec(lrs, base=BASE, lanes=2)
    driver, phase = Here(given, tmp_path, PLANNER), Phase("runs", planned(lrs, base=BASE))
    driver.carry_out(phase)
    good, bad = phase.runs
    assert is_done(tmp_path, good)
    assert [*phase.errors] == [bad.run_id]
    assert "lower lr" in phase.errors[bad.run_id]


def test_the_plan_says_what_is_trained_side_by_side(tmp_path: Path) -> None:
    given = spec({"seed": [0, 1, 2, 3, 4]}, base=BASE, lanes=4)
    assert preview(given, tmp_path).lanes == (5, 3)
    assert preview(given.model_copy(update={"lanes": 1}), tmp_path).lanes == (0, 1)
    large = {**BASE, "model": {"name": "mlp", "hidden": [600, 600]}}
    chosen = given.model_copy(update={"lanes": "auto", "base": large, "workers": 1})
    assert preview(chosen, tmp_path).lanes == (0, 1)
    said = Console(file=StringIO(), width=200)
    plan(preview(chosen, tmp_path), said)
    assert "one by one: no gain was measured for models of" in said.file.getvalue()  # type: ignore[attr-defined]
    small = chosen.model_copy(update={"base": BASE})
    assert preview(small, tmp_path).lanes == (5, 5)
