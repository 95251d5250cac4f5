"""The runs of a sweep as a tree of training steps, cut where runs part.

All orders of five experiences, 120 runs of five steps, are 600 steps one by one but a tree of 325.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sweeps.planning import Run


@dataclass(eq=False)
class Segment:
    """Steps in a row with no branch in between: what a worker does at a time.

    Args:
        run: any run that passes here; it is carried to `end` steps.
        start, end: the states it begins and ends with, by number of steps.
        branches: addresses of the states on its way where runs part.
        runs: those that end here.
        children: where the runs that go on go.
        attempts: how often a worker was lost with it.
        alone: whether it is done by itself, and not along with what is below it.
    """

    run: Run
    start: int
    end: int
    branches: frozenset[str] = frozenset()
    runs: list[Run] = field(default_factory=list)
    children: list[Segment] = field(default_factory=list)
    attempts: int = 0
    alone: bool = False

    @property
    def size(self) -> int:
        """How many states are made or looked at."""
        return max(1, self.end - self.start)

    @property
    def keys(self) -> tuple[str, ...]:
        """The addresses of the states it makes."""
        return self.run.keys[self.start + 1 : self.end + 1]

    def walk(self) -> Iterator[Segment]:
        """This segment and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all_runs(self) -> list[Run]:
        """The runs that end here or below."""
        return [run for segment in self.walk() for run in segment.runs]


def grow(runs: Iterable[Run]) -> list[Segment]:
    """The segments that begin before any training, one per distinct beginning."""
    return [_segment(group, 0, 0, frozenset()) for group in _by_key(runs, 0)]


def _segment(runs: Sequence[Run], start: int, same: int, above: frozenset[str]) -> Segment:
    """The segment from state `start` on of runs that are equal up to state `same` at least."""
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
    """The runs in groups that have state k in common."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.keys[k], []).append(run)
    return list(groups.values())


def states(runs: Iterable[Run]) -> set[str]:
    """The addresses of all distinct states that training leads to."""
    return {key for run in runs for key in run.keys[1 : run.upto + 1]}
