"""The driver: hands the segments of a tree to workers, and repeats the work of those that die."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import ray

from cl_platform.config.registry import plugins
from cl_platform.config.run_config import RunConfig
from cl_platform.config.signatures import names_in
from cl_platform.engine.execution import report_origin
from cl_platform.engine.lanes.running import unfit
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, StorageError
from cl_platform.storage.files import each, exists
from sweeps.executor.cluster import capacity, check_alive, check_capacity, connected
from sweeps.executor.lanes import beside, most_lanes
from sweeps.executor.pool import Pool, SegmentBatch, WorkerDied, WorkerHandle
from sweeps.executor.tree import Segment, grow, states
from sweeps.executor.worker import Outcome, WorkerConfig, shared_streams
from sweeps.planning import Run
from sweeps.record import Phase, failure, forget_failure, is_done, write_failure
from sweeps.spec import SweepSpec

OWN_CODE = re.compile(r'"name":"[^"]+:[^"]+"')  # a plugin by module:Name
MOST_ATTEMPTS = 3  # for a segment whose workers die
TICK_SECONDS = 0.5

OnTick = Callable[[Phase], None]


class OutOfTime(ClpError):
    """The time of the budget is over: running work has ended and no other was started."""


@dataclass(eq=False, repr=False)
class Driver:
    """Carries out the runs of one phase after the other on the same workers.

    Ray starts with the first phase that has work left. Leaving the driver's context stops the
    workers at once; the next driver begins their unfinished work again.

    Args:
        address: of Ray.
        watch: called about twice a second.
        retry: whether to try runs again that failed before.
        deadline: of :func:`time.monotonic`, after which no work is started.
    """

    spec: SweepSpec
    out: Path
    planner: Planner
    address: str = "local"
    watch: OnTick = lambda phase: None
    retry: bool = False
    deadline: float = float("inf")

    def __post_init__(self) -> None:
        self.pool: Pool | None = None
        self.trained_before: set[str] = set()  # states of the present phase
        self._open = ExitStack()
        self._connected = False
        self._printed: set[str] = set()
        self._checked: set[str] = set()  # own strategies that a segment checks

    def survey(self, phase: Phase) -> list[Segment]:
        """Fill in the tally of a phase from the files, and return the work that is left."""
        tally, left = phase.tally, []
        found = each(
            self.out,
            lambda run: (failure(self.out, run), run.whole and is_done(self.out, run)),
            phase.runs,
        )
        for run, (error, done) in zip(phase.runs, found, strict=True):
            if error is not None and self.retry:
                forget_failure(self.out, run)
            if done or run.run_id in phase.done:
                phase.done.add(run.run_id)
            elif error is not None and not self.retry:
                phase.errors[run.run_id] = error
            else:
                left.append(run)
        tally.runs, tally.failed = len(phase.runs), len(phase.errors)
        tally.done = tally.kept = len(phase.done)
        tally.experiences = sum(run.upto for run in phase.runs)
        distinct = states(phase.runs) if self.spec.share else set()
        self.trained_before = self._trained(distinct)
        tally.distinct, tally.known = len(distinct), len(self.trained_before)
        if not self.spec.share:
            tally.distinct = tally.experiences
        if not self.spec.share:
            return [s for run in left for s in grow([run])]
        roots = self.beside(grow(left))
        for root in roots:
            names = own_strategies(root.run.config.strategy)
            root.check = not names <= self._checked
            self._checked |= names
        return sorted(roots, key=lambda root: not root.check)  # their fault is said first

    def beside(self, roots: list[Segment]) -> list[Segment]:
        """Join the segments that one worker trains side by side."""
        leaves = [s for root in roots for s in root.walk() if not s.children]
        runs = [segment.run for segment in leaves]
        most = most_lanes(self.spec, len(leaves), lambda: self.n_workers(runs, len(runs)))
        return beside(roots, most, self._fits) if most > 1 else roots

    def _fits(self, run: Run) -> bool:
        plan = self.planner(run.config, run.order)
        return unfit(plan, plan.make_strategy()) is None

    def carry_out(self, phase: Phase) -> None:
        """Do the work of a phase that is left.

        Raises:
            OutOfTime: the budget's time is over.
            ClpError: the workers cannot start, or have other code.
        """
        ready = deque(self.survey(phase))
        if not ready:
            return
        segments = [segment for root in ready for segment in root.walk()]
        pool = self._start(segments)
        left = sum(segment.size for segment in segments)
        leaves = sum(not segment.children for segment in segments)  # most that run at a time
        while ready or pool.unfinished():
            if not pool.unfinished():
                self.check_time()
            if time.monotonic() < self.deadline:
                pool.grow(leaves)
                while ready and (worker := pool.available()) is not None:
                    pool.assign(worker, _next(ready, worker), left)
            check_alive()
            for batch, outcome in [*pool.wait(TICK_SECONDS), *self._end_overdue(pool)]:
                if self.record_outcome(phase, batch, outcome, ready):
                    left -= sum(segment.size for segment in batch)
            self.watch(phase)

    def check_time(self, grace: float = 0.0) -> None:
        """Raise OutOfTime if the budget's time is over, and seconds of grace as well."""
        if time.monotonic() >= self.deadline + grace:
            raise OutOfTime(f"the budget of {self.spec.budget.hours:g} hours is used up")

    def _end_overdue(self, pool: Pool) -> list[tuple[SegmentBatch, Outcome]]:
        """End the workers whose work takes longer than it may, and return that work.

        Raises:
            OutOfTime: there are workers that have not ended when all hours have passed twice.
        """
        self.check_time(grace=3600 * (self.spec.budget.hours or 0))
        overdue = [(worker, line) for worker in pool.busy() if (line := self._overdue(worker))]
        return [(pool.end(worker), Outcome({}, line)) for worker, line in overdue]

    def _overdue(self, worker: WorkerHandle) -> str | None:
        """Return which limit the present work of a worker is beyond, in one line."""
        budget, batch = self.spec.budget, worker.batches[0]
        minutes = (time.monotonic() - worker.since) / 60
        limit = budget.minutes_per_run
        if limit is not None and minutes + batch[0].spent / 60 > limit:
            return f"took longer than budget.minutes_per_run={limit:g} allows, and was ended"
        limit = budget.minutes_per_experience
        if limit is None or minutes <= limit:
            return None
        states = [key for segment in batch for key in segment.keys]
        # Without sharing nothing tells how far it is.
        done = len(self._trained(states)) if self.spec.share else len(states) - 1
        if minutes <= limit * (done + 1):
            return None
        return (
            f"an experience took longer than budget.minutes_per_experience={limit:g} allows, and "
            "was ended"
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.close()
        self._open.close()

    def connect(self, configs: Iterable[RunConfig]) -> None:
        """Connect to Ray, if it is not connected, for runs of these configurations.

        Raises:
            BadInput: it cannot be reached, or no node has the resources of a run.
        """
        if self._connected:
            return
        own_code = any(OWN_CODE.search(c.model_dump_json()) for c in configs)
        self._open.enter_context(connected(self.address, "." if own_code else None, self.out))
        self._connected = True
        check_capacity(self.spec.resources)

    def n_workers(self, runs: Iterable[Run], most: int) -> int:
        """Return how many workers there is room for now, `most` at most."""
        if self.address == "local" and not ray.is_initialized():
            room = int((os.cpu_count() or 1) / self.spec.resources.cpus)
        else:
            self.connect(run.config for run in runs)
            room = capacity(self.spec.resources)
        return min(room, self.spec.workers or room, most)

    def in_flight(self) -> int:
        """Return how many states busy workers have made so far in their present batch."""
        busy = self.pool.busy() if self.pool is not None else []
        keys = [key for worker in busy for segment in worker.batches[0] for key in segment.keys]
        try:
            return len(self._trained(set(keys) - self.trained_before))
        except StorageError:  # an address that does not answer just now; this is only shown
            return 0

    def _start(self, segments: Sequence[Segment]) -> Pool:
        """Put the data into the object store and prepare the workers."""
        configs = [run.config for s in segments for run in (s.run, *s.runs)]
        self.connect(configs)
        if self.pool is None:
            if self.spec.share:
                runs = [segment.run for segment in segments]
                kinds = {(r.config.strategy["name"], repr(r.config.model)): r for r in runs}
                for run in kinds.values():
                    report_origin(self.out / "states", self.planner(run.config, run.order))
            config = WorkerConfig(
                out=self.out,
                keep=self.spec.states_to_keep,
                budget=int(self.spec.state_budget_gb * 1e9),
                share=self.spec.share,
                resources=self.spec.resources,
                streams=shared_streams(configs, self.planner),
                wandb=self.tracking,
                group=self.spec.name,
                lanes=self.spec.lanes,
            )
            self.pool = Pool(config, self.spec.workers)
        return self.pool

    @cached_property
    def tracking(self) -> Literal["off", "offline", "online"]:
        """The mode of W&B: whether its server takes runs is found out once for the whole sweep."""
        if self.spec.wandb.mode != "online":
            return self.spec.wandb.mode
        from cl_platform.tracking.wandb.sink import decided_mode

        return decided_mode(self.out, self.spec.name)

    def record_outcome(
        self,
        phase: Phase,
        batch: SegmentBatch,
        outcome: Outcome | WorkerDied,
        ready: deque[Segment],
    ) -> bool:
        """Record an outcome and queue the segments that follow.

        Returns:
            Whether the batch is finished; otherwise its first segment is queued again, alone.
        """
        segment = batch[0]
        if isinstance(outcome, WorkerDied):
            segment.attempts += outcome.begun
            again = segment.attempts < MOST_ATTEMPTS
            outcome = Outcome({}, f"lost {segment.attempts} workers: {outcome.reason}")
        else:
            again = outcome.error is not None and len(batch) > 1
        for line in outcome.stderr.splitlines():
            if line not in self._printed:  # once, however many workers write it
                self._printed.add(line)
                print(line, file=sys.stderr)
        if outcome.fatal:
            raise ClpError(outcome.error)
        if again:
            segment.alone = True  # to find which of several is to blame
            ready.append(segment)
            return False
        if outcome.error is not None and segment.lanes:  # which of them it is of
            ready.extend(grow(segment.runs))
            return False
        if outcome.error is not None:
            self._fail(phase, segment, outcome.error, outcome.details)
            return True
        trained = {key for done in batch for key in done.keys}
        phase.tally.trained += len(trained - self.trained_before)
        phase.metrics |= outcome.metrics
        phase.done |= outcome.metrics.keys()
        phase.tally.done = len(phase.done)
        if len(batch) == 1:
            for child in segment.children:
                child.spent = segment.spent
            ready.extend(reversed(segment.children))
        return True

    def _fail(self, phase: Phase, segment: Segment, error: str, details: str | None) -> None:
        """Record the error with every run that needs the segment."""
        error = error.removeprefix(f"run {segment.run.run_id} ")  # the error of several runs
        for run in segment.all_runs():
            if run.whole and is_done(self.out, run):  # before its worker died
                phase.done.add(run.run_id)
            else:
                phase.errors[run.run_id] = error
                write_failure(self.out, run, error, details)
        phase.tally.failed, phase.tally.done = len(phase.errors), len(phase.done)

    def _trained(self, keys: Collection[str]) -> set[str]:
        """Return the keys that have a record in the store."""
        states = self.out / "states"
        found = each(self.out, lambda key: exists(states / key[:2] / f"{key}.json"), keys)
        return {key for key, there in zip(keys, found, strict=True) if there}


def own_strategies(section: Mapping[str, Any]) -> set[str]:
    """Return the names of the strategies of a section that do not come with the platform."""
    registered = plugins("strategy")
    shipped = {n for n, entry in registered.items() if entry.value.startswith("strategies.")}
    return {*names_in(section)} - shipped


def _next(ready: deque[Segment], worker: WorkerHandle) -> Segment:
    """Take the segment that a worker does next: below its last one, else from the far end."""
    if worker.last is not None and ready[-1] in worker.last.children:
        return ready.pop()
    return ready.popleft()
