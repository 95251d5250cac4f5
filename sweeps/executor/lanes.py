"""Which segments of the tree one worker trains side by side, on stacked weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sweeps.executor.tree import Segment
from sweeps.planning import Run
from sweeps.spec import SweepSpec

MOST_LANES = 8  # unless a number is asked for


def most_lanes(spec: SweepSpec, runs: int, workers: Callable[[], int]) -> int:
    """Return how many runs may be trained side by side; 1 for none.

    Unless a number is asked for, no worker is left without work for it. The limits in minutes are
    those of single runs, and what is not shared has no store in which lanes could leave their work.

    Args:
        runs: that are left.
        workers: returns how many there is room for; asked only if needed.
    """
    limited = spec.budget.minutes_per_experience or spec.budget.minutes_per_run
    if spec.lanes == 1 or limited or not spec.share or runs < 2:
        return 1
    if spec.lanes != "auto":
        return spec.lanes
    return max(1, min(MOST_LANES, runs // max(1, workers())))


def beside(segments: Iterable[Segment], most: int, fits: Callable[[Run], bool]) -> list[Segment]:
    """Join segments that begin at the same state or before any, whose runs all end with them and
    differ in seed, order and numbers only.

    Args:
        most: segments in one.
        fits: whether runs like one are to have lanes.
    """
    joined: list[Segment] = []
    groups: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.children:
            segment.children = beside(segment.children, most, fits)
            joined.append(segment)
        else:
            groups.setdefault(_kind(segment), []).append(segment)
    for group in groups.values():
        alone = len(group) == 1 or not fits(group[0].run)
        n = len(group) if alone else math.ceil(len(group) / most)  # of even sizes
        joined += [_join(group[i::n]) for i in range(n)]
    return joined


def _join(segments: list[Segment]) -> Segment:
    if len(segments) == 1:
        return segments[0]
    return replace(
        segments[0],
        branches=frozenset().union(*(s.branches for s in segments)),
        runs=[run for s in segments for run in s.runs],
        lanes=tuple(s.run for s in segments),
    )


def _kind(segment: Segment) -> str:
    """Return what the runs of segments must have in common to be trained side by side."""
    config = segment.run.config.model_dump(mode="json", exclude={"seed", "curriculum"})
    for section in ("strategy", "optimizer"):
        config[section] = _without_numbers(config[section])
    return json.dumps([segment.start, segment.end, config], sort_keys=True)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_numbers(inner) for inner in value]
    return "a number" if isinstance(value, float) else value
