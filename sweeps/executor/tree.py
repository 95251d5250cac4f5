"""The runs of a sweep as a tree of training steps, cut where runs part.

All orders of five experiences, 120 runs of five steps, are 600 steps one by one but a tree of 325.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sweeps.planning import Run


@dataclass(eq=False)
class Segment:
    """Steps in a row with no branch in between: the work of a worker at a time.

    Args:
        run: any run that has these steps; training it up to `end` carries out the segment.
        start, end: number of steps before and after it.
        branches: addresses of the states up to its end where runs part.
        runs: the runs that end here.
        children: the segments that follow.
        attempts: how many workers died with it.
        spent: seconds that workers took for it and for the segments above it.
        check: whether its worker sees first that the strategy goes on from a stored state.
        alone: whether it is assigned by itself, and not along with the segments below it.
        lanes: if several segments are joined, which a worker trains side by side, a run of each.
        exclusive: whether its worker gets the GPU for itself: it ran out of memory.
        finished: whether it has ended, with or without an error.
        known: addresses of the states above it, once they have been made.
        stored: whether the last of these is stored.
    """

    run: Run
    start: int
    end: int
    branches: frozenset[str] = frozenset()
    runs: list[Run] = field(default_factory=list)
    children: list[Segment] = field(default_factory=list)
    attempts: int = 0
    spent: float = 0.0
    check: bool = False
    alone: bool = False
    lanes: tuple[Run, ...] = ()
    exclusive: bool = False
    finished: bool = False
    known: tuple[str, ...] = ()
    stored: bool = False

    @property
    def size(self) -> int:
        """Return how many states it makes; at least 1, for looking one up."""
        return max(1, self.end - self.start) * max(1, len(self.lanes))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the addresses of the states it makes."""
        runs = self.lanes or (self.run,)
        return tuple(key for run in runs for key in run.keys[self.start + 1 : self.end + 1])

    def walk(self) -> Iterator[Segment]:
        """Yield this segment and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all_runs(self) -> list[Run]:
        """Return the runs that end here or below."""
        return [run for segment in self.walk() for run in segment.runs]


def grow(runs: Iterable[Run]) -> list[Segment]:
    """Return the segments that begin before any training, one per distinct beginning."""
    return [_segment(group, 0, 0, frozenset()) for group in _by_key(runs, 0)]


def _segment(runs: Sequence[Run], start: int, same: int, above: frozenset[str]) -> Segment:
    """Return the segment from state `start` on of runs that are equal up to state `same`."""
    end = same
    while all(run.upto > end for run in runs) and len(_by_key(runs, end + 1)) == 1:
        end += 1
    going_on = [run for run in runs if run.upto > end]
    branches = above | {runs[0].keys[end]} if going_on else above
    return Segment(
        runs[0],
        start,
        end,
        branches,
        [run for run in runs if run.upto == end],
        [_segment(group, end, end + 1, branches) for group in _by_key(going_on, end + 1)],
    )


def _by_key(runs: Iterable[Run], k: int) -> list[list[Run]]:
    """Group the runs by their state k."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.keys[k], []).append(run)
    return list(groups.values())


def pinned(segments: Iterable[Segment]) -> set[str]:
    """Return the addresses of the states that segments which have not finished begin from."""
    return {child.run.keys[child.start] for child in segments if not child.finished}


def states(runs: Iterable[Run]) -> set[str]:
    """Return the addresses of all distinct states that training makes."""
    return {key for run in runs for key in run.keys[1 : run.upto + 1]}
