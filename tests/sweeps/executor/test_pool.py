"""The pool and the driver on a Ray of this process: workers that hang, are spoilt or die."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from cl_platform.errors import ClpError
from sweeps.executor import driver as driving, pool as pooling
from sweeps.executor.driver import Driver, OutOfTime
from sweeps.executor.pool import Pool
from sweeps.executor.task import Outcome, Place, Task, WorkerConfig
from sweeps.executor.worker import Worker
from sweeps.record import Phase
from sweeps.spec import Resources
from tests.helpers.sweep_runs import PLANNER, planned, spec


class Reference:
    """To what a worker answers, which is asked for once."""

    def __init__(self, actor: Any, call: Callable[[], Any]) -> None:
        self.actor, self.call, self.answer = actor, call, None


class FakeRay:
    """Workers that answer when they are asked for an answer, unless they hang or were killed."""

    def __init__(self, work: Callable[[Task], Outcome], place: Place) -> None:
        self.work, self.killed, self.place = work, 0, place
        self.alive: list[Any] = []

    def put(self, value: Any) -> Any:
        return value

    def remote(self, cls: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._start))

    def _start(self, config: Any) -> Any:
        actor = SimpleNamespace(alive=True)
        self.alive.append(actor)
        actor.where = SimpleNamespace(remote=lambda: Reference(actor, lambda: self.place))
        actor.carry_out = SimpleNamespace(
            remote=lambda task: Reference(actor, lambda: self.work(task))
        )
        return actor

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Any]]:
        hanging = []  # workers do one thing after the other
        for reference in references:
            if reference.answer is None and reference.actor.alive:
                if reference.actor not in hanging:
                    reference.answer = reference.call()
                if reference.answer is None:
                    hanging.append(reference.actor)
        return [r for r in references if r.answer is not None or not r.actor.alive], []

    def get(self, reference: Reference) -> Any:
        if not reference.actor.alive:
            raise RayActorError
        return reference.answer

    def kill(self, actor: Any) -> None:
        actor.alive = False
        self.alive.remove(actor)
        self.killed += 1


class FakeDriver(Driver):
    """A driver whose workers are in this process."""

    def _start(self, segments: Any) -> Pool:
        if self.pool is None:
            keep, share = self.spec.states_to_keep, self.spec.share
            resources, measure = Resources(gpus=1), self.spec.resources.gpus == "auto"
            config = WorkerConfig(self.out, keep, None, share, resources, {}, measure=measure)
            self.pool = Pool(config, self.spec.workers)
        return self.pool


@pytest.fixture
def carry_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Carries out a sweep; `work` is what a worker answers to a task, None while it hangs.

    With every look at the workers `tick` seconds pass.
    """
    clock, ticks = [10.0], [10.0]
    monkeypatch.setattr(pooling, "capacity", lambda resources: 3)
    monkeypatch.setattr(pooling, "is_autoscaled", lambda: False)
    monkeypatch.setattr(driving, "check_alive", lambda: clock.__setitem__(0, clock[0] + ticks[0]))
    for module in (driving, pooling):
        monkeypatch.setattr(
            module,
            "time",
            SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep),
        )

    def carried(
        work: Callable[[Worker, Task], Outcome | None],
        hours: float | None = None,
        tick: float = 10.0,
        place: Place = Place("node", 0, ("0",)),
        **given: Any,
    ) -> tuple[Phase, FakeRay]:
        ticks[0] = tick
        given = {"workers": 1, **given}
        sort, measure = spec(**given).states_to_keep, spec(**given).resources.gpus == "auto"
        config = WorkerConfig(tmp_path, sort, None, True, Resources(), {}, measure=measure)
        worker = Worker(config)
        worker.planner, worker.shares = PLANNER, place.shares
        ray = FakeRay(lambda task: work(worker, task), place)  # type: ignore[arg-type, return-value]
        monkeypatch.setattr(pooling, "ray", ray)
        carried.ray = ray  # type: ignore[attr-defined]
        given["budget"] = {"hours": hours, **given.get("budget", {})}
        phase = Phase("runs", planned(**given))
        deadline = 10 + 3600 * hours if hours else float("inf")
        driver = FakeDriver(spec(**given), tmp_path, PLANNER, deadline=deadline)
        try:
            driver.carry_out(phase)
        finally:
            assert driver.pool is not None
            driver.pool.close()
        return phase, ray

    return carried


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
