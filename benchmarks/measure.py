"""Paired rounds: every way of doing the same thing once a round, in alternating order.

Only ratios within a round are compared, since a shared machine is now faster and now slower.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Size = Literal["tiny", "quick", "full"]
Way = Callable[[], float]
"""Does it once and returns the seconds that count."""


class NotMeasured(Exception):
    """Says in one line why a case has no figures here."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        rounds: that count; one more warms up.
        size: of the problems; ``tiny`` only shows that they work, and its figures mean nothing.
    """

    rounds: int = 5
    size: Size = "full"

    def pick(self, tiny: T, quick: T, full: T) -> T:
        """Return what belongs to the size."""
        return {"tiny": tiny, "quick": quick, "full": full}[self.size]


@dataclass(frozen=True)
class Goal:
    """A target for the median of a row."""

    sense: Literal["at most", "at least"]
    limit: float

    def met(self, value: float) -> bool:
        return value <= self.limit if self.sense == "at most" else value >= self.limit


@dataclass(frozen=True)
class Row:
    """A line of a case's table.

    Args:
        setting: on what.
        what: is measured.
        against: what stands for 1; empty if the values are no ratios.
        values: one a round.
        unit: of the values; "" for ratios.
        seconds: one a round, for the reader.
        goal: for the median of the values.
        note: a reason: why there are no values, or why no goal holds.
    """

    setting: str
    what: str
    against: str = ""
    values: list[float] = field(default_factory=list)
    unit: str = ""
    seconds: list[float] = field(default_factory=list)
    goal: Goal | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        if not self.values:
            return "not measured"
        return "yes" if self.goal.met(median(self.values)) else "**no**"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        goal = data["goal"] and Goal(**data["goal"])
        return cls(**{**data, "goal": goal})


def cpu(call: Callable[[], object]) -> float:
    """Return the seconds of CPU time that a call takes in this process, all threads together."""
    return _timed(call, time.process_time)


def wall(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes, waiting included."""
    return _timed(call, time.perf_counter)


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()  # what the others left behind
    start = clock()
    call()
    return clock() - start


def paired(ways: Mapping[str, Way], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Return the seconds of each way, one a round; every other round goes from the last to the
    first. A first round that is not counted warms up, if asked for."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    gc.freeze()  # what was there before need not be looked at by each collection
    try:
        for i in range(rounds + warm_up):
            for name in list(ways)[:: -1 if i % 2 else 1]:
                seconds = ways[name]()
                if i >= warm_up:
                    found[name].append(seconds)
    finally:
        gc.unfreeze()
    return found


def ratios(found: Mapping[str, Sequence[float]], what: str, against: str) -> list[float]:
    """Return the ratios of two ways, round by round."""
    return [a / b for a, b in zip(found[what], found[against], strict=True)]


def compared(
    setting: str,
    found: Mapping[str, list[float]],
    against: str,
    goals: Mapping[str, Goal] | None = None,
) -> list[Row]:
    """Return a row for each way, relative to one of them."""
    return [
        Row(
            setting,
            name,
            against,
            ratios(found, name, against),
            "",
            seconds,
            (goals or {}).get(name),
        )
        for name, seconds in found.items()
    ]
