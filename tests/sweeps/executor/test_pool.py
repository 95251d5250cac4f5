"""The pool and the driver on a Ray of this process: workers that hang, are spoilt or die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_platform.errors import ClpError
from sweeps.executor.driver import OutOfTime
from sweeps.executor.task import Outcome, Task
from sweeps.executor.worker import Worker

AXES = {"strategy": ["finetune", "er"]}


def hang(name: str) -> Callable[[Worker, Task], Outcome | None]:
    def work(worker: Worker, task: Task) -> Outcome | None:
        return None if task.run.config.strategy["name"] == name else worker.carry_out(task)

    return work


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (
            {"minutes_per_experience": 1},
            "an experience took longer than budget.minutes_per_experience=1 allows, and was ended",
        ),
        ({"minutes_per_run": 2}, "took longer than budget.minutes_per_run=2 allows, and was ended"),
    ],
)
def test_a_run_that_hangs_is_ended_and_the_others_go_on(
    carry_out: Callable[..., Any], tmp_path: Path, budget: dict[str, float], line: str
) -> None:
    phase, ray = carry_out(hang("finetune"), axes=AXES, budget=budget)
    failed = next(run for run in phase.runs if run.config.strategy["name"] == "finetune")
    assert phase.errors == {failed.run_id: line}
    assert (phase.tally.done, phase.tally.failed) == (1, 1)
    assert line in (tmp_path / "runs" / failed.run_id / "failed.json").read_text()
    assert ray.killed == 2  # the one that hung, and the last one at the end


@pytest.mark.parametrize("hanging", range(4, 6))
def test_what_a_worker_had_ahead_is_done_by_another_one(
    carry_out: Callable[..., Any], hanging: int
) -> None:
    """Short work is assigned ahead, here behind a run that hangs."""

    def hang_late(worker: Worker, task: Task) -> Outcome | None:
        return None if task.run.config.seed == hanging else worker.carry_out(task)

    axes, budget = {"seed": {"range": 6}}, {"minutes_per_run": 0.1}
    phase, _ = carry_out(hang_late, tick=0.1, axes=axes, budget=budget)
    assert (phase.tally.done, phase.tally.failed) == (5, 1)


def test_what_is_slow_but_goes_on_is_within_its_limit(carry_out: Callable[..., Any]) -> None:
    ticks: list[Task] = []

    def slow(worker: Worker, task: Task) -> Outcome | None:
        outcome = worker.carry_out(task)
        ticks.append(task)
        return outcome

    phase, _ = carry_out(slow, axes=AXES, budget={"minutes_per_experience": 0.2})
    assert (phase.tally.done, phase.errors) == (2, {})
    assert len(ticks) == 2


def test_work_that_hangs_does_not_outlast_the_hours(carry_out: Callable[..., Any]) -> None:
    with pytest.raises(OutOfTime, match=r"the budget of 0\.1 hours is used up"):
        carry_out(hang("er"), hours=0.1, axes=AXES)


def test_a_worker_that_is_spoilt_is_replaced(carry_out: Callable[..., Any]) -> None:
    def spoil(worker: Worker, task: Task) -> Outcome:
        outcome = worker.carry_out(task)
        return Outcome(outcome.metrics, spoilt=True)

    phase, ray = carry_out(spoil, axes=AXES)
    assert (phase.tally.done, phase.errors) == (2, {})
    assert ray.killed == 2


def test_a_worker_with_other_code_ends_the_sweep(carry_out: Callable[..., Any]) -> None:
    def refuse(worker: Worker, task: Task) -> Outcome:
        return Outcome({}, "other code", fatal=True)

    with pytest.raises(ClpError, match="other code"):
        carry_out(refuse, axes=AXES)
