"""Long-lived workers on Ray: started as nodes have room, replaced when they die, ended if idle."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cl_platform.errors import ClpError, one_line
from sweeps.executor.actor import actor_class
from sweeps.executor.cluster import capacity, is_autoscaled, needs
from sweeps.executor.task import Outcome, Place, Task, WorkerConfig
from sweeps.executor.tree import Segment

SHORT_SECONDS = 0.5  # work that takes less is assigned in batches, and ahead
CAPACITY_SECONDS = 2.0  # between queries of the nodes' capacity
BATCHES_PER_WORKER = 4  # at least, of the work that is left
MOST_FAILED_STARTS = 5  # in a row
IDLE_SECONDS = 30.0  # that a worker is kept for nothing, at least: as long as a start takes
LEAST_ASKED = 8  # workers that an autoscaler is asked for at a time, or as many as there are

SegmentBatch = list[Segment]  # a segment, and if that is short all segments below it


@dataclass(eq=False)
class WorkerHandle:
    """A worker: starting, idle, or busy with the first of its batches.

    Args:
        since: when it began its first batch, ended its last one, or was started.
        place: where it runs.
    """

    actor: Any
    starting: Any
    batches: list[SegmentBatch] = field(default_factory=list)
    last: Segment | None = None
    since: float = 0.0
    place: Place | None = None

    def shares_gpu(self, other: WorkerHandle) -> bool:
        """Return whether another worker has one of its GPUs."""
        a, b = self.place, other.place
        return bool(a and b and a.node == b.node and {*a.gpus} & {*b.gpus})


@dataclass(frozen=True)
class WorkerDied:
    """The outcome of a batch whose worker died, whether the batch had `begun` or not."""

    reason: str
    begun: bool = True


class Pool:
    """Workers with equal resources.

    Args:
        limit: most workers at a time; None for as many as the nodes have room for.
    """

    def __init__(self, config: WorkerConfig, limit: int | None) -> None:
        self.config = config
        self.limit = limit
        self.workers: list[WorkerHandle] = []
        self._pending: dict[Any, tuple[WorkerHandle, SegmentBatch | None]] = {}
        self._pace = float("inf")  # recent seconds per state
        self._failed_starts = 0
        self._start_seconds = 0.0  # the fewest so far
        self._queried, self._room, self._asks = -CAPACITY_SECONDS, 0, False
        self._needed = time.monotonic()  # when there was work for all workers
        self._ahead = True  # whether workers are started before there is work for them
        self._alone: WorkerHandle | None = None  # has its GPU for itself
        self._given = ray.put(config)
        wanted = needs(config.resources)
        self._remote: Any = ray.remote(actor_class()).options(
            num_cpus=wanted.pop("CPU", 0),
            num_gpus=wanted.pop("GPU", 0),
            memory=wanted.pop("memory", None),
            resources=wanted,
            max_restarts=0,  # the pool replaces it: a runtime environment would cost seconds more
        )

    def fit(self, ready: int, later: int) -> None:
        """Have as many workers as there is work for: start some, or give back what idle ones hold.

        Ones that wait for a node are what an autoscaler sees. So none of them is started ahead.

        Args:
            ready: segments that nobody works at yet.
            later: most segments that can be worked at one day, those included that are.
        """
        useful = len(self.busy()) + ready
        if len(self.workers) <= useful:
            self._needed = time.monotonic()
        else:
            self._release(useful)
        if self._alone not in self.workers:
            self._alone = None
            self._grow(useful, max(useful, later) if self._ahead else useful)

    def _grow(self, useful: int, wanted: int) -> None:
        limit = self.limit or wanted
        if len(self.workers) >= min(wanted, limit):
            return
        if time.monotonic() - self._queried > CAPACITY_SECONDS:
            self._queried, self._room = time.monotonic(), capacity(self.config.resources)
            self._asks = self._asks or is_autoscaled()
        room = min(wanted, self._room)
        if self._asks:
            waiting = sum(w.starting is not None for w in self.workers)
            asked = max(LEAST_ASKED, len(self.workers) - waiting)
            room = max(room, min(useful, len(self.workers) - waiting + asked))
        while len(self.workers) < min(room, limit):
            actor = self._remote.remote([self._given])
            worker = WorkerHandle(actor, actor.where.remote(), since=time.monotonic())
            self.workers.append(worker)
            self._pending[worker.starting] = (worker, None)

    def _release(self, useful: int) -> None:
        """End workers that nothing was ready for in a while, and those that wait for a node."""
        kept = max(IDLE_SECONDS, self._start_seconds)
        limit = time.monotonic() - kept
        idle = [w for w in self._started() if not w.batches and max(w.since, self._needed) < limit]
        waiting = [w for w in self.workers if w.starting is not None and self._needed < limit]
        beyond = max(0, len(self.workers) - max(useful, self._room))  # what an autoscaler is to add
        for worker in [*waiting[:beyond], *idle][: len(self.workers) - useful]:
            self._ahead = False
            self._drop(worker)

    def _drop(self, worker: WorkerHandle) -> None:
        self._pending.pop(worker.starting, None)
        self._end(worker)

    def available(self) -> WorkerHandle | None:
        """Return a worker that can take a batch: an idle one, or a busy one that soon ends."""
        depth = 2 if self._pace < SHORT_SECONDS else 1
        able = [w for w in self._started() if len(w.batches) < depth and not self._stands_by(w)]
        return min(able, key=lambda w: len(w.batches), default=None)

    def isolate(self) -> WorkerHandle | None:
        """Return an idle worker that has its GPU for itself among these workers, once there is one.

        Those that share it get no more work meanwhile, and are ended when they have none. When the
        worker has done its next batch, all is as before.
        """
        if self._alone not in self.workers:
            free = [w for w in self._started() if len(w.batches) < 2]
            self._alone = min(free, key=lambda w: len(w.batches), default=None)
        alone = self._alone
        if alone is None:
            return None
        # One that is just starting may come to be on that GPU.
        beside = [w for w in self.workers if w.starting is not None or w.shares_gpu(alone)]
        beside = [w for w in beside if w is not alone]
        for worker in [w for w in beside if not w.batches]:
            self._drop(worker)
        return None if alone.batches or any(w.batches for w in beside) else alone

    def _stands_by(self, worker: WorkerHandle) -> bool:
        """Return whether a worker gets no work, so that one can have its GPU for itself."""
        alone = self._alone
        return alone is not None and (worker is alone or worker.shares_gpu(alone))

    def _started(self) -> list[WorkerHandle]:
        return [w for w in self.workers if w.starting is None]

    def started(self) -> bool:
        """Return whether any worker has started."""
        return bool(self._started())

    def busy(self) -> list[WorkerHandle]:
        """Return the workers that have a batch."""
        return [w for w in self.workers if w.batches]

    def unfinished(self) -> bool:
        """Return whether any batch is to come back, from a worker or from one that was ended."""
        return any(batch is not None for _, batch in self._pending.values())

    def assign(self, worker: WorkerHandle, segment: Segment, left: int) -> None:
        """Let a worker carry out a segment, along with all segments below it if that is short.

        Args:
            left: states that all workers still have to make; towards the end batches are smaller.
        """
        short = min(SHORT_SECONDS, self._pace * left / (BATCHES_PER_WORKER * len(self.workers)))
        below = list(segment.walk())
        together = not segment.alone and sum(s.size for s in below) * self._pace < short
        batch = below if together else [segment]
        if not worker.batches:
            worker.since = time.monotonic()
        worker.batches.append(batch)
        task = task_of(batch)
        if worker.place is not None and not worker.place.shares:
            task = replace(task, files=(ray.put(task.luggage(self.config.out)),))
        self._pending[worker.actor.carry_out.remote(task)] = (worker, batch)

    def wait(self, seconds: float) -> list[tuple[SegmentBatch, Outcome | WorkerDied]]:
        """Return the batches that ended, after `seconds` at most."""
        if not self._pending:  # no node has room
            time.sleep(seconds)
            return []
        ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        found = []
        for reference in ready:
            worker, batch = self._pending.pop(reference)
            outcome = self._outcome(reference, worker, batch)
            if batch is None:
                self._note_start(worker, outcome)
                continue
            if worker in self.workers and worker.batches[0] is batch:  # else its worker died
                took = time.monotonic() - worker.since
                pace = took / sum(s.size for s in batch)
                self._pace = pace if self._pace == float("inf") else (self._pace + pace) / 2
                batch[0].spent += took
            worker.batches.remove(batch)
            if batch[0].exclusive:
                self._alone = None
            worker.since, worker.last = time.monotonic(), batch[0]
            if isinstance(outcome, Outcome) and outcome.spoilt:
                self._end(worker)
            found.append((batch, outcome))
        return found

    def end(self, worker: WorkerHandle) -> SegmentBatch:
        """End a worker at once, and return what it was doing; other work it had comes back."""
        self._end(worker)
        batch = worker.batches.pop(0)
        reference = next(r for r, (_, pending) in self._pending.items() if pending is batch)
        del self._pending[reference]
        return batch

    def _end(self, worker: WorkerHandle) -> None:
        self.workers.remove(worker)
        ray.kill(worker.actor)

    def _note_start(self, worker: WorkerHandle, outcome: Any) -> None:
        worker.starting = None
        now = time.monotonic()  # some of the time it may have waited for a node
        took, worker.since = now - worker.since, now
        self._start_seconds = min(took, self._start_seconds or took)
        worker.place = outcome if isinstance(outcome, Place) else None
        self._failed_starts = self._failed_starts + 1 if isinstance(outcome, WorkerDied) else 0
        if self._failed_starts >= MOST_FAILED_STARTS:
            raise ClpError(
                f"workers cannot start: {outcome.reason}; see that the nodes have this project and "
                "its packages installed"
            )

    def _outcome(self, reference: Any, worker: WorkerHandle, batch: SegmentBatch | None) -> Any:
        try:
            return ray.get(reference)
        except RayError as error:
            begun = worker in self.workers and (not batch or worker.batches[0] is batch)
            if worker in self.workers:
                self.workers.remove(worker)
            if isinstance(error, OutOfMemoryError):
                return WorkerDied("its node ran out of memory; give resources.memory", begun)
            if isinstance(error, RayActorError) and batch is not None:
                return WorkerDied("its process or node died", begun)
            cause = error.cause if isinstance(error, RayTaskError) else error
            return WorkerDied(one_line(cause, 300), begun)

    def close(self, seconds: float = 0.0) -> None:
        """Stop all workers; busy ones get some seconds to save a checkpoint, if any."""
        try:
            if seconds and (left := self._told_to_end()):
                ray.wait(left, num_returns=len(left), timeout=seconds)
        finally:
            for worker in self.workers:
                ray.kill(worker.actor)
            self.workers.clear()
            self._pending.clear()

    def _told_to_end(self) -> list[Any]:
        """Tell busy workers to end, and return what they are doing."""

        def end(process: int) -> None:  # by value, as the workers' class
            os.kill(process, signal.SIGTERM)

        here = ray.get_runtime_context().get_node_id()
        told = [worker for worker in self.busy() if worker.place is not None]
        for place in (worker.place for worker in told if worker.place is not None):
            if place.node == here:
                with suppress(OSError):  # it has died
                    end(place.process)
            else:
                there = NodeAffinitySchedulingStrategy(place.node, soft=False)
                ray.remote(end).options(num_cpus=0, scheduling_strategy=there).remote(place.process)
        return [reference for reference, (worker, _) in self._pending.items() if worker in told]


def task_of(batch: SegmentBatch) -> Task:
    """Return the task that carries out a batch."""
    first, several = batch[0], len(batch) > 1
    return Task(
        first.run,
        first.end,
        branches=frozenset().union(*(segment.branches for segment in batch)),
        transient=frozenset(s.run.keys[s.end] for s in batch if several and s.children),
        ending=tuple(run for segment in batch for run in segment.runs),
        check=any(segment.check for segment in batch),
        lanes=() if several else first.lanes,
        known=first.known,
        start=first.known[-1] if first.stored else None,
        alone=first.exclusive,
    )
