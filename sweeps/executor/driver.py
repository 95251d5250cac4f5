"""The driver: feeds the segments of a tree to workers, and sees to it that nothing is lost."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import ray

from cl_platform.config.run_config import RunConfig
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, StorageError
from cl_platform.storage.files import each, exists
from sweeps.executor.cluster import capacity, check_capacity, connected
from sweeps.executor.pool import Lost, Member, Pool, threads
from sweeps.executor.tree import Segment, grow, states
from sweeps.executor.worker import Orders, Outcome, shared_streams
from sweeps.planning import Run
from sweeps.record import (
    Phase,
    failure,
    forget_failure,
    is_done,
    write_failure,
)
from sweeps.spec import SweepSpec

OWN_CODE = re.compile(r'"name":"[^"]+:[^"]+"')  # a plugin by module:Name
MOST_ATTEMPTS = 3  # for a segment whose workers die
TICK_SECONDS = 0.5

OnTick = Callable[[Phase], None]


class Stopped(ClpError):
    """The time of the budget is over; what was begun has ended and nothing new was."""


class Driver:
    """Carries out the runs of one phase after the other on the same workers.

    Ray is not started before there is something to do. Leaving the driver's context stops the
    workers at once; what they had not finished is begun again by the next driver.

    Args:
        address: of Ray.
        watch: called about twice a second.
        retry: whether runs that failed before are tried again.
        deadline: of :func:`time.monotonic`, after which nothing new begins.
    """

    def __init__(
        self,
        spec: SweepSpec,
        out: Path,
        planner: Planner,
        address: str = "local",
        watch: OnTick = lambda phase: None,
        retry: bool = False,
        deadline: float = float("inf"),
    ) -> None:
        self.spec = spec
        self.out = out
        self.planner = planner
        self.address = address
        self.watch = watch
        self.retry = retry
        self.deadline = deadline
        self.pool: Pool | None = None
        self._open = ExitStack()
        self._connected = False
        self.known: set[str] = set()
        self._heard: set[str] = set()

    def survey(self, phase: Phase) -> list[Segment]:
        """What is left to do of a phase, as segments; counts what is there already."""
        tally, left = phase.tally, []
        found = each(self.out, self._look, phase.runs)
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
        self.known = self._trained(distinct)
        tally.distinct, tally.known = len(distinct), len(self.known)
        if not self.spec.share:
            tally.distinct = tally.experiences
        return grow(left) if self.spec.share else [s for run in left for s in grow([run])]

    def carry_out(self, phase: Phase) -> None:
        """Do what is left of a phase.

        Raises:
            Stopped: the budget's time is over.
            ClpError: the workers cannot work at all.
        """
        ready = deque(self.survey(phase))
        if not ready:
            return
        segments = [segment for root in ready for segment in root.walk()]
        pool = self._start(segments)
        left = sum(segment.size for segment in segments)
        at_once = sum(not segment.children for segment in segments)  # sooner or later
        while ready or pool.busy():
            in_time = time.monotonic() < self.deadline
            if not in_time and not pool.busy():
                raise Stopped(f"the budget of {self.spec.budget.hours:g} hours is used up")
            if in_time:
                pool.grow(at_once)
                while ready and (member := pool.idle()) is not None:
                    pool.give(member, _next(ready, member), left)
            for parcel, outcome in pool.wait(TICK_SECONDS):
                if self._note(phase, parcel, outcome, ready):
                    left -= sum(segment.size for segment in parcel)
            self.watch(phase)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.close()
        self._open.close()

    def connect(self, configs: Iterable[RunConfig]) -> None:
        """Connect to Ray, unless that is done, for runs of these configurations.

        Raises:
            BadInput: it cannot be reached, or no node has the resources of a run.
        """
        if self._connected:
            return
        own_code = any(OWN_CODE.search(c.model_dump_json()) for c in configs)
        self._open.enter_context(connected(self.address, "." if own_code else None))
        self._connected = True
        check_capacity(self.spec.resources)

    def workers(self, runs: Iterable[Run], most: int) -> int:
        """How many runs (`most` at most) can be under way at a time, as far as can be told."""
        if self.address == "local" and not ray.is_initialized():
            room = int((os.cpu_count() or 1) / self.spec.resources.cpus)
        else:
            self.connect(run.config for run in runs)
            room = capacity(self.spec.resources)
        return min(room, self.spec.workers or room, most)

    def in_flight(self) -> int:
        """States that busy workers have made so far of those they are to make."""
        busy = self.pool.busy() if self.pool is not None else []
        keys = [key for member in busy for segment in member.parcels[0] for key in segment.keys]
        try:
            return len(self._trained(set(keys) - self.known))
        except StorageError:  # an address that does not answer just now; this is only shown
            return 0

    def _start(self, segments: Sequence[Segment]) -> Pool:
        """Put the data into the object store and prepare the workers."""
        configs = [run.config for s in segments for run in (s.run, *s.runs)]
        self.connect(configs)
        if self.pool is None:
            orders = Orders(
                out=self.out,
                keep=self.spec.kept,
                budget=int(self.spec.state_budget_gb * 1e9),
                share=self.spec.share,
                threads=threads(self.spec.resources),
                gpus=self.spec.resources.gpus > 0,
                streams=shared_streams(configs, self.planner),
                wandb=self._tracking(),
                group=self.spec.name,
            )
            self.pool = Pool(self.spec.resources, orders, self.spec.workers)
        return self.pool

    def _tracking(self) -> str:
        """The mode of W&B; whether its server answers is asked once for all workers."""
        if self.spec.wandb.mode != "online":
            return self.spec.wandb.mode
        from cl_platform.tracking.wandb.login import reachable_mode

        return reachable_mode()

    def _note(
        self,
        phase: Phase,
        parcel: Sequence[Segment],
        outcome: Outcome | Lost,
        ready: deque[Segment],
    ) -> bool:
        """Take in what came back; False if the parcel has to be done again."""
        segment = parcel[0]
        if isinstance(outcome, Lost):
            segment.attempts += outcome.begun
            segment.alone = True  # which of several is to blame?
            if segment.attempts < MOST_ATTEMPTS:
                ready.append(segment)
                return False
            reason = f"lost {segment.attempts} workers: {outcome.reason}"
            self._fail(phase, segment, reason, None)
            return True
        for line in outcome.said.splitlines():
            if line not in self._heard:  # one line, however many workers say it
                self._heard.add(line)
                print(line, file=sys.stderr)
        if outcome.stray:
            raise ClpError(outcome.error)
        if outcome.error is not None and len(parcel) > 1:
            segment.alone = True
            ready.append(segment)
            return False
        if outcome.error is not None:
            self._fail(phase, segment, outcome.error, outcome.details)
            return True
        made = {key for done in parcel for key in done.keys}
        phase.tally.trained += len(made - self.known)
        phase.metrics |= outcome.metrics
        phase.done |= outcome.metrics.keys()
        phase.tally.done = len(phase.done)
        if len(parcel) == 1:
            ready.extend(reversed(segment.children))
        return True

    def _fail(self, phase: Phase, segment: Segment, error: str, details: str | None) -> None:
        """Record the error with every run that needed the segment."""
        error = error.removeprefix(f"run {segment.run.run_id} ")  # it stands for several
        for run in segment.all_runs():
            if run.whole and is_done(self.out, run):  # before its worker was lost
                phase.done.add(run.run_id)
                continue
            phase.errors[run.run_id] = error
            write_failure(self.out, run, error, details)
        phase.tally.failed, phase.tally.done = len(phase.errors), len(phase.done)

    def _look(self, run: Run) -> tuple[str | None, bool]:
        """The error of a run that failed before, and whether it has ended with a result."""
        return failure(self.out, run), run.whole and is_done(self.out, run)

    def _trained(self, keys: set[str]) -> set[str]:
        known = each(self.out, self._is_trained, keys)
        return {key for key, there in zip(keys, known, strict=True) if there}

    def _is_trained(self, key: str) -> bool:
        return exists(self.out / "states" / key[:2] / f"{key}.json")


def _next(ready: deque[Segment], member: Member) -> Segment:
    """What a worker does next: go on below what it has just done, else begin at the far end."""
    if member.last is not None and ready[-1] in member.last.children:
        return ready.pop()
    return ready.popleft()
