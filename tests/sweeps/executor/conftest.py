"""A Ray of this process, whose workers hang, are spoilt or die as a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from sweeps.executor import driver as driving, limits, pool as pooling
from sweeps.executor.driver import Driver
from sweeps.executor.pool import Pool
from sweeps.executor.task import Outcome, Place, Task, WorkerConfig
from sweeps.executor.worker import Worker
from sweeps.record import Phase
from sweeps.spec import Resources
from tests.helpers.sweep_runs import PLANNER, planned, spec

PLACE = Place("node", 0, ("0",))


class Reference:
    """To what a worker answers, which is asked for once."""

    def __init__(self, actor: Any, call: Callable[[], Any]) -> None:
        self.actor, self.call, self.answer = actor, call, None


class FakeRay:
    """Workers that answer when they are asked for an answer, unless they hang or were killed."""

    def __init__(self, work: Callable[[Task], Outcome], places: Iterator[Place]) -> None:
        self.work, self.killed, self.places = work, 0, places
        self.alive: list[Any] = []
        self.most = self.first = 0  # alive at a time, and when they were first asked
        self.gpus: list[float] = []  # of each pool
        self.counts: list[int] = []  # most workers alive of each
        self.ended_before = 0

    def put(self, value: Any) -> Any:
        return value

    def remote(self, cls: type) -> Any:
        return SimpleNamespace(options=self._options)

    def _options(self, **options: Any) -> Any:
        self.gpus.append(options["num_gpus"])
        self.counts.append(0)
        return SimpleNamespace(remote=self._start)

    def _start(self, config: Any) -> Any:
        actor = SimpleNamespace(alive=True)
        self.alive.append(actor)
        self.most = max(self.most, len(self.alive))
        self.counts[-1] = max(self.counts[-1], len(self.alive))
        actor.where = SimpleNamespace(remote=lambda: Reference(actor, lambda: next(self.places)))
        actor.carry_out = SimpleNamespace(
            remote=lambda task: Reference(actor, lambda: self.work(task))
        )
        return actor

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Any]]:
        self.first = self.first or len(self.alive)
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
            self.pool = self._workers(
                WorkerConfig(self.out, keep, None, share, self.spec.resources, {})
            )
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
    for module in (driving, limits, pooling):
        monkeypatch.setattr(
            module,
            "time",
            SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep),
        )

    def carried(
        work: Callable[[Worker, Task], Outcome | None],
        hours: float | None = None,
        tick: float = 10.0,
        place: Place | Iterator[Place] = PLACE,
        **given: Any,
    ) -> tuple[Phase, FakeRay]:
        ticks[0] = tick
        given = {"workers": 1, **given}
        checked = spec(**given)
        measure = checked.resources.gpus == "auto"
        kept, share = checked.states_to_keep, checked.share
        config = WorkerConfig(tmp_path, kept, None, share, Resources(), {}, measure=measure)
        worker = Worker(config)
        places = repeat(place) if isinstance(place, Place) else place
        worker.planner = PLANNER
        worker.shares = not isinstance(place, Place) or place.shares
        ray = FakeRay(lambda task: work(worker, task), places)  # type: ignore[arg-type, return-value]
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
            ray.ended_before = ray.killed
            driver.pool.close()
        return phase, ray

    return carried
