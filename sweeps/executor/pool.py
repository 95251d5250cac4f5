"""Long-lived workers on Ray: started as nodes have room, replaced when they die."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from cl_platform.errors import ClpError
from sweeps.executor.cluster import capacity, needs
from sweeps.executor.tree import Segment
from sweeps.executor.worker import Orders, Outcome, Task, Worker
from sweeps.spec import Resources

SHORT_SECONDS = 0.5  # what is done so soon is given together, and ahead
LOOK_SECONDS = 2.0  # between looks at what the nodes have room for
SHARES = 4  # of what is left, per worker, that a parcel is at most
MOST_STILLBORN = 5  # workers in a row that do not even start

Parcel = list[Segment]  # a segment, and with it all that is below if that is short


@dataclass(eq=False)
class Member:
    """A worker: starting, idle, or busy with the first of its parcels."""

    actor: Any
    starting: Any
    parcels: list[Parcel] = field(default_factory=list)
    last: Segment | None = None
    since: float = 0.0  # when it began its first parcel


@dataclass(frozen=True)
class Lost:
    """A worker died; what it was given has to be done again, whether `begun` or not."""

    reason: str
    begun: bool = True


class Pool:
    """Workers with equal resources.

    Args:
        limit: at most so many; None for what the nodes have room for.
    """

    def __init__(self, resources: Resources, orders: Orders, limit: int | None) -> None:
        self.resources = resources
        self.limit = limit
        self.members: list[Member] = []
        self._waiting: dict[Any, tuple[Member, Parcel | None]] = {}
        self._pace = float("inf")  # seconds of a state, lately
        self._stillborn = 0
        self._looked, self._room = -LOOK_SECONDS, 0
        self._orders = ray.put(orders)
        wanted = needs(resources)
        self._remote: Any = ray.remote(Worker).options(
            num_cpus=wanted.pop("CPU", 0),
            num_gpus=wanted.pop("GPU", 0),
            memory=wanted.pop("memory", None),
            resources=wanted,
            max_restarts=0,  # the pool replaces it: a runtime environment would cost seconds more
        )

    def grow(self, wanted: int) -> None:
        """Start workers until there are `wanted`, or as many as there is room for."""
        if len(self.members) >= min(wanted, self.limit or wanted):
            return
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked, self._room = time.monotonic(), capacity(self.resources)
        room = min(wanted, self._room, self.limit or wanted)
        while len(self.members) < room:
            actor = self._remote.remote(self._orders)
            member = Member(actor, actor.where.remote())
            self.members.append(member)
            self._waiting[member.starting] = (member, None)

    def idle(self) -> Member | None:
        """A worker that can be given something; one at work too, if it will soon be done."""
        depth = 2 if self._pace < SHORT_SECONDS else 1
        able = [m for m in self.members if m.starting is None and len(m.parcels) < depth]
        return min(able, key=lambda m: len(m.parcels), default=None)

    def started(self) -> bool:
        """Whether any worker is there."""
        return any(m.starting is None for m in self.members)

    def busy(self) -> list[Member]:
        return [m for m in self.members if m.parcels]

    def give(self, member: Member, segment: Segment, left: int) -> None:
        """Let a worker carry out a segment, and all below it if that is soon done.

        Args:
            left: states still to be made by all workers: towards the end less is given at a time.
        """
        soon = min(SHORT_SECONDS, self._pace * left / (SHARES * len(self.members)))
        below = list(segment.walk())
        together = not segment.alone and sum(s.size for s in below) * self._pace < soon
        parcel = below if together else [segment]
        if not member.parcels:
            member.since = time.monotonic()
        member.parcels.append(parcel)
        self._waiting[member.actor.carry_out.remote(_task(parcel))] = (member, parcel)

    def wait(self, seconds: float) -> list[tuple[Parcel, Outcome | Lost]]:
        """What has come back within some seconds; returns as soon as something has."""
        if not self._waiting:  # no node has room
            time.sleep(seconds)
            return []
        ray.wait(list(self._waiting), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        found = []
        for reference in ready:
            member, parcel = self._waiting.pop(reference)
            outcome = self._read(reference, member, parcel)
            if parcel is None:
                self._started(member, outcome)
                continue
            if member.parcels[0] is parcel:  # else its worker died before
                seconds = (time.monotonic() - member.since) / sum(s.size for s in parcel)
                self._pace = seconds if self._pace == float("inf") else (self._pace + seconds) / 2
            member.parcels.remove(parcel)
            member.since, member.last = time.monotonic(), parcel[0]
            found.append((parcel, outcome))
        return found

    def _started(self, member: Member, outcome: Any) -> None:
        member.starting = None
        self._stillborn = self._stillborn + 1 if isinstance(outcome, Lost) else 0
        if self._stillborn >= MOST_STILLBORN:
            raise ClpError(
                f"workers cannot start: {outcome.reason}; see that the nodes have this project and "
                "its packages installed"
            )

    def _read(self, reference: Any, member: Member, parcel: Parcel | None) -> Any:
        try:
            return ray.get(reference)
        except RayError as error:
            begun = member in self.members and (not parcel or member.parcels[0] is parcel)
            if member in self.members:
                self.members.remove(member)
            if isinstance(error, OutOfMemoryError):
                return Lost("its node ran out of memory; give resources.memory", begun)
            if isinstance(error, RayActorError) and parcel is not None:
                return Lost("its process or node died", begun)
            return Lost(" ".join(str(error).split())[:300], begun)

    def close(self) -> None:
        """Stop all workers at once."""
        for member in self.members:
            ray.kill(member.actor)
        self.members.clear()
        self._waiting.clear()


def _task(parcel: Parcel) -> Task:
    first, several = parcel[0], len(parcel) > 1
    return Task(
        first.run,
        first.end,
        branches=frozenset().union(*(segment.branches for segment in parcel)),
        held=frozenset(s.run.keys[s.end] for s in parcel if several and s.children),
        ending=tuple(run for segment in parcel for run in segment.runs),
    )


def threads(resources: Resources) -> int:
    """Threads of one worker: its CPUs."""
    return max(1, int(resources.cpus))
