"""The driver: hands the segments of a tree to workers, and repeats the work of those that die."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import ray

from cl_platform.config.given import names_given
from cl_platform.config.registry import plugins
from cl_platform.config.run_config import RunConfig
from cl_platform.config.signatures import names_in
from cl_platform.engine.execution import report_origin
from cl_platform.engine.lanes.choice import refusal
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, StorageError
from cl_platform.models.objects import Parcel
from cl_platform.storage.files import discard, each, is_remote, write_atomic
from sweeps.executor.cluster import capacity, check_alive, check_capacity, connected
from sweeps.executor.folder import SweepFolder
from sweeps.executor.lanes import beside, most_lanes
from sweeps.executor.limits import overdue
from sweeps.executor.outcomes import Outcomes
from sweeps.executor.pool import Pool, SegmentBatch, WorkerDied, WorkerHandle
from sweeps.executor.task import Outcome, WorkerConfig
from sweeps.executor.tree import Segment, grow, pinned, states
from sweeps.executor.worker import SHARED, shared_streams
from sweeps.planning import Run
from sweeps.record import Phase, forget_failure
from sweeps.spec import SweepSpec

OWN_CODE = re.compile(r'"name":"[^"]+:[^"]+"')  # a plugin by module:Name
TICK_SECONDS = 0.5
SAVE_SECONDS = 10.0  # for the checkpoints of workers, when the sweep is told to end

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
        begin: called once before the work of a phase starts, if there is any.
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
    begin: OnTick = lambda phase: None

    def __post_init__(self) -> None:
        self.pool: Pool | None = None
        self.trained_before: set[str] = set()  # states of the present phase
        self._open = ExitStack()
        self._connected = False
        self._folder = SweepFolder(self.out, self.spec.state_budget_gb)
        self._outcomes = Outcomes(self._folder)
        self.no_lanes = ""  # why some runs are trained one by one, where lanes are asked for
        self._checked: set[str] = set()  # own strategies that a segment checks

    def survey(self, phase: Phase) -> list[Segment]:
        """Fill in the tally of a phase from the files, and return the work that is left."""
        tally, left = phase.tally, []
        for run, (error, done) in zip(phase.runs, self._folder.ended(phase.runs), strict=True):
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
        self.trained_before = self._folder.trained(distinct)
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
        why = refusal(self.planner(run.config, run.order), gaining=self.spec.lanes == "auto")
        self.no_lanes = why or self.no_lanes
        return why is None

    def carry_out(self, phase: Phase) -> None:
        """Do the work of a phase that is left.

        Raises:
            OutOfTime: the budget's time is over.
            ClpError: the workers cannot start, or have other code.
        """
        ready = deque(self.survey(phase))
        if not ready:
            return
        self.begin(phase)
        segments = [segment for root in ready for segment in root.walk()]
        pool = self._start(segments)
        alone: deque[Segment] = deque()  # to be tried again with a GPU for themselves
        left = sum(segment.size for segment in segments)
        leaves = sum(not segment.children for segment in segments)  # most that run at a time
        while ready or alone or pool.unfinished():
            if not pool.unfinished():
                self.check_time()
                pool = self._share_gpus(pool)
            if time.monotonic() < self.deadline:
                pool.fit(len(ready) + len(alone), leaves)
                self._assign(pool, ready, alone, left)
            else:
                pool.fit(0, 0)
            check_alive()
            for batch, outcome in [*pool.wait(TICK_SECONDS), *self._end_overdue(pool)]:
                if self.record_outcome(phase, batch, outcome, ready):
                    left -= sum(segment.size for segment in batch)
                elif ready[-1].exclusive:
                    alone.append(ready.pop())
                written = outcome.written if isinstance(outcome, Outcome) else 0
                self._folder.hold_budget(written, lambda: self._needed(segments))
            self.watch(phase)
        self._folder.hold_budget(0, None)

    def _assign(self, pool: Pool, ready: deque[Segment], alone: deque[Segment], left: int) -> None:
        """Give work to the workers that can take some."""
        if alone and (worker := pool.isolate()) is not None:
            pool.assign(worker, alone.popleft(), left)
        measured = self._outcomes.gpus is not None  # others take the place of this worker
        while ready and not measured and (worker := pool.available()) is not None:
            pool.assign(worker, _next(ready, worker), left)

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
        found = [(w, line) for w in pool.busy() if (line := overdue(self.spec, w, self._made))]
        return [(pool.end(worker), Outcome({}, line)) for worker, line in found]

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.pool is not None:
            self.pool.close(SAVE_SECONDS if kind is KeyboardInterrupt else 0.0)
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
        if (line := check_capacity(self.spec.resources)) is not None:
            print(line, file=sys.stderr)

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
        busy = self.pool.busy() if self.pool is not None and self.spec.share else []
        try:
            made = each(self.out, self._made, busy)
        except StorageError:  # an address that does not answer just now; this is only shown
            return 0
        return len(set().union(*made) - self.trained_before)

    def _made(self, worker: WorkerHandle) -> set[str]:
        """Return the states of the present batch of a worker that are there."""
        return self._folder.made(k for segment in worker.batches[0] for k in segment.keys)

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
            names = [name for c in configs for name in names_given(c.model_dump())]
            token = uuid4().bytes
            if not is_remote(self.out):
                write_atomic(self.out / SHARED, token, sync=False)
                self._open.callback(discard, self.out / SHARED)
            config = WorkerConfig(
                out=self.out,
                keep=self.spec.states_to_keep,
                budget=None,
                share=self.spec.share,
                resources=self.spec.resources,
                streams=shared_streams(configs, self.planner),
                wandb=self.spec.wandb.model_copy(update={"mode": self.tracking}),
                sinks=self.spec.sinks,
                group=self.spec.name,
                checkpoint_minutes=self.spec.checkpoint_minutes,
                predictions=self.spec.predictions,
                prediction_budget=self.spec.prediction_budget_mb * 1e6,
                lanes=self.spec.lanes,
                token=token,
                given=Parcel.of(names) if names else None,
            )
            self.pool = self._workers(config)
        return self.pool

    def _workers(self, config: WorkerConfig) -> Pool:
        """Return workers, one with a GPU of its own if the first run is to say what runs need."""
        if config.resources.gpus != "auto":
            return Pool(config, self.spec.workers)
        resources = config.resources.model_copy(update={"gpus": 1.0})
        return Pool(replace(config, resources=resources, measure=True), 1)

    def _share_gpus(self, pool: Pool) -> Pool:
        """Return workers with as much of a GPU as the first run has shown to need."""
        if self._outcomes.gpus is None:
            return pool
        pool.close()
        resources = pool.config.resources.model_copy(update={"gpus": self._outcomes.gpus})
        config = replace(pool.config, resources=resources, measure=False)
        self.pool, self._outcomes.gpus = self._workers(config), None
        return self.pool

    def _needed(self, segments: Iterable[Segment]) -> set[str]:
        """Return the states that must stay: those in work, and those that work begins from."""
        busy = self.pool.busy() if self.pool is not None else []
        in_work = {k for w in busy for batch in w.batches for s in batch for k in s.keys}
        return in_work | pinned(segments)

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
        """Record an outcome and queue the segments that follow; see :class:`Outcomes`."""
        return self._outcomes.record(phase, batch, outcome, ready, self.trained_before)


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
