"""Long-lived workers on Ray: started as nodes have room, replaced when they die."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from cl_platform.errors import ClpError, one_line
from sweeps.executor.cluster import capacity, needs
from sweeps.executor.tree import Segment
from sweeps.executor.worker import Outcome, Task, WorkerConfig

SHORT_SECONDS = 0.5  # work that takes less is assigned in batches, and ahead
CAPACITY_SECONDS = 2.0  # between queries of the nodes' capacity
BATCHES_PER_WORKER = 4  # at least, of the work that is left
MOST_FAILED_STARTS = 5  # in a row

SegmentBatch = list[Segment]  # a segment, and if that is short all segments below it


@dataclass(eq=False)
class WorkerHandle:
    """A worker: starting, idle, or busy with the first of its batches."""

    actor: Any
    starting: Any
    batches: list[SegmentBatch] = field(default_factory=list)
    last: Segment | None = None
    since: float = 0.0  # when it began its first batch


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
        self.resources = config.resources
        self.limit = limit
        self.workers: list[WorkerHandle] = []
        self._pending: dict[Any, tuple[WorkerHandle, SegmentBatch | None]] = {}
        self._pace = float("inf")  # recent seconds per state
        self._failed_starts = 0
        self._queried, self._room = -CAPACITY_SECONDS, 0
        self._config = ray.put(config)
        wanted = needs(config.resources)
        self._remote: Any = ray.remote(_actor_class()).options(
            num_cpus=wanted.pop("CPU", 0),
            num_gpus=wanted.pop("GPU", 0),
            memory=wanted.pop("memory", None),
            resources=wanted,
            max_restarts=0,  # the pool replaces it: a runtime environment would cost seconds more
        )

    def grow(self, wanted: int) -> None:
        """Start workers until there are `wanted`, or as many as there is room for."""
        if len(self.workers) >= min(wanted, self.limit or wanted):
            return
        if time.monotonic() - self._queried > CAPACITY_SECONDS:
            self._queried, self._room = time.monotonic(), capacity(self.resources)
        room = min(wanted, self._room, self.limit or wanted)
        while len(self.workers) < room:
            actor = self._remote.remote([self._config])
            worker = WorkerHandle(actor, actor.where.remote())
            self.workers.append(worker)
            self._pending[worker.starting] = (worker, None)

    def available(self) -> WorkerHandle | None:
        """Return a worker that can take a batch: an idle one, or a busy one that soon ends."""
        depth = 2 if self._pace < SHORT_SECONDS else 1
        able = [w for w in self.workers if w.starting is None and len(w.batches) < depth]
        return min(able, key=lambda w: len(w.batches), default=None)

    def started(self) -> bool:
        """Return whether any worker has started."""
        return any(w.starting is None for w in self.workers)

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
        self._pending[worker.actor.carry_out.remote(task_of(batch))] = (worker, batch)

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

    def close(self) -> None:
        """Stop all workers at once."""
        for worker in self.workers:
            ray.kill(worker.actor)
        self.workers.clear()
        self._pending.clear()


def _actor_class() -> type:
    """Return a class that Ray pickles by value, so that a process can start without our modules.

    The registry then imports them from where they are installed: Ray puts the working directory
    first on the path, which may have a package `sweeps` of its own.
    """

    class Actor:
        def __init__(self, config: list[Any]) -> None:  # a reference in a list stays a reference
            from cl_platform.config.registry import load

            self.worker = load("command", "sweeps.executor.worker:Worker")(ray.get(config[0]))

        def where(self) -> tuple[str, int]:
            return self.worker.where()  # type: ignore[no-any-return]

        def carry_out(self, task: Task) -> Outcome:
            return self.worker.carry_out(task)  # type: ignore[no-any-return]

    return Actor


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
    )
