"""Whether a chosen value lies at the edge of what was tried: better ones may lie beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cl_platform.report.tuning.trials import Choice, Trial, Tuning

SHARE = 0.05  # of a range, within which a value is at its end
RANGES = ("uniform", "loguniform", "integers")


@dataclass(frozen=True)
class Edge:
    """A chosen value at the edge.

    Args:
        key: of the setting.
        side: ``lower`` or ``upper``.
        text: the value; `tried` says in words among which.
    """

    choice: Choice
    key: str
    side: str
    text: str
    tried: str


def edges(tuning: Tuning) -> list[Edge]:
    """Return the chosen values that are the smallest or largest of those tried, or within 5 % of
    the end of a range (on its own scale) that was drawn from."""
    return [
        edge
        for choice in tuning.choices
        for key, text in choice.settings.items()
        if (edge := _edge(tuning, choice, key, text)) is not None
    ]


def _edge(tuning: Tuning, choice: Choice, key: str, text: str) -> Edge | None:
    value = number(text)
    if value is None:
        return None
    drawn = range_of(tuning.spec, key, choice.group.get("strategy", ""))
    if drawn is not None:
        side = _end(value, *drawn)
        tried = f"{drawn[0]} {drawn[1]:g} to {drawn[2]:g}"
    else:
        values = candidates(tuning.trials, choice.group, key)
        side = "" if len(values) < 2 else {values[0]: "lower", values[-1]: "upper"}.get(value, "")
        tried = f"{len(values)} values from {values[0]:g} to {values[-1]:g}" if values else ""
    return Edge(choice, key, side, text, tried) if side else None


def _end(value: float, form: str, low: float, high: float) -> str:
    """Return which end of a range a value lies at; empty if at neither."""
    if form == "loguniform":
        value, low, high = (math.log(max(v, 1e-300)) for v in (value, low, high))
    place = (value - low) / (high - low)
    return "lower" if place <= SHARE else "upper" if place >= 1 - SHARE else ""


def candidates(trials: Sequence[Trial], group: Mapping[str, str], key: str) -> list[float]:
    """Return the numbers that were tried of a setting in a group, ascending."""
    given = (t.settings[key] for t in trials if t.group == group and key in t.settings)
    return sorted({v for text in given if (v := number(text)) is not None})


def number(text: str) -> float | None:
    """Return the finite number that a text is, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def range_of(axes: Mapping[str, Any], key: str, strategy: str) -> tuple[str, float, float] | None:
    """Return the form and bounds of the range that a setting was drawn from, if from any."""
    for found, name, drawn in _ranges(axes):
        if found == key and name in ("", strategy):
            return drawn
    return None


def _ranges(axes: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, float, float]]]:
    """Yield the ranges of a specification: the key, the plugin it is of if any, and the range."""
    for key, value in axes.items():
        if (drawn := _range(value)) is not None:
            yield key, "", drawn
        items = value.get("grid", [value]) if isinstance(value, Mapping) else value
        for item in items if isinstance(items, list) else ():
            for name, inner in item.items() if isinstance(item, Mapping) else ():
                if (drawn := _range(inner)) is not None:
                    yield f"{key}.{name}", str(item.get("name", "")), drawn


def _range(value: Any) -> tuple[str, float, float] | None:
    if not isinstance(value, Mapping) or len(value) != 1:
        return None
    ((form, bounds),) = value.items()
    if form not in RANGES or not isinstance(bounds, list) or len(bounds) != 2:
        return None
    numbers = [b for b in bounds if isinstance(b, int | float) and math.isfinite(b)]
    if len(numbers) < 2 or not numbers[0] < numbers[1]:
        return None
    if form == "loguniform" and numbers[0] <= 0:
        return None
    return form, float(numbers[0]), float(numbers[1])
