"""The sections of a report's page on tuning: what was chosen, and every trial."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cl_platform.report.page import chart, choice, paragraph, table
from cl_platform.report.tuning.edges import Edge, edges, number, range_of
from cl_platform.report.tuning.trials import Trial, Tuning

MOST_VALUES = 12  # of a setting, that stand on an axis each at a place of its own
WIDE = 30  # largest over smallest number, from which on an axis is logarithmic
LONGEST = 16  # letters of a value on an axis
MARK = "\N{NO-BREAK SPACE}\N{WARNING SIGN}"


def chosen(tuning: Tuning) -> Iterator[str]:
    """Yield the choices as a table, with what lies at the edge of what was tried."""
    if not tuning.choices:
        return
    found = edges(tuning)
    marks = {(id(edge.choice), edge.key) for edge in found}
    first, *groups = dict.fromkeys(key for c in tuning.choices for key in c.group)
    keys = tuning.tried()
    rows = [
        [
            c.group.get(first, "-"),
            tuning.measure.shown(c.value),
            *(c.settings.get(key, "-") + MARK * ((id(c), key) in marks) for key in keys),
            *(c.group.get(key, "-") for key in groups),
            str(c.seeds),
        ]
        for c in tuning.choices
    ]
    head = [first, _value(tuning), *map(short, keys), *groups, "seeds"]
    yield "<h2>Chosen on validation data</h2>"
    yield table(head, rows, 0, numbers=(1, len(head) - 1), sortable=True)
    yield from map(_warning, _alike(found).items())


def _alike(found: Sequence[Edge]) -> dict[tuple[str, ...], list[Edge]]:
    """Return the edges by setting, side and range: there may be one for each of many choices."""
    same: dict[tuple[str, ...], list[Edge]] = {}
    for edge in found:
        value = edge.text if edge.tried[:1].isdigit() else ""  # of a range each has its own
        same.setdefault((edge.key, edge.side, edge.tried, value), []).append(edge)
    return same


def _warning(found: tuple[tuple[str, ...], Sequence[Edge]]) -> str:
    (key, side, tried, value), same = found
    names = [", ".join(edge.choice.group.values()) for edge in same]
    if value:
        where = f"the {'smallest' if side == 'lower' else 'largest'} of {tried}"
        said = f"{short(key)} = {value} is {where}"
    else:
        values = ", ".join(edge.text for edge in same[:3]) + ", ..." * (len(same) > 3)
        said = f"{short(key)} = {values} lies at the {side} end of {tried}"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    text = f"{said}: chosen for {'; '.join(names[:3])}{more}. Better ones may lie beyond it."
    return f"<p class=warn>\N{WARNING SIGN} {html.escape(text)}</p>"


def sections(tuning: Tuning) -> Iterator[str]:
    """Yield all trials: as parallel coordinates, and as a table to be sorted."""
    if not tuning.trials:
        return
    failed = sum(bool(trial.error) for trial in tuning.trials)
    about = f"{len(tuning.trials)} points" + f", {failed} failed" * (failed > 0)
    yield "<h2>Tuning</h2>"
    yield paragraph(
        f"{about} ({tuning.how}). Values are {tuning.measure.name} on validation data, means over "
        "the tuning seeds; test data chose nothing.",
        soft=True,
    )
    drawn = [each["name"] for each in coordinates(tuning)]
    if drawn:
        options = [(str(i), name) for i, name in enumerate(drawn)]
        list_ = choice("tuned", "of", options) if len(drawn) > 1 else ""
        early = any(t.learned for t in tuning.trials)
        yield chart("trials", f"What was tried{' and not stopped early' * early}", list_)
    yield _trials(tuning)


def _trials(tuning: Tuning) -> str:
    trials = tuning.trials
    first, *groups = dict.fromkeys(key for t in trials for key in t.group)
    keys = tuning.tried()
    counts = {"seeds": "seeds", "learned": "experiences"}
    counts = {k: v for k, v in counts.items() if any(getattr(t, k) for t in trials)}
    sign = tuning.measure.metric.sign or 1
    best = sorted(trials, key=lambda t: (bool(t.error), -(t.learned or 0), _last(-sign * t.value)))
    rows = [
        [
            t.group.get(first, "-"),
            tuning.measure.shown(t.value),
            *(t.settings.get(key, "-") for key in keys),
            *(t.group.get(key, "-") for key in groups),
            *(str(getattr(t, name) or "-") for name in counts),
            t.error or ("chosen" if t.chosen else ""),
        ]
        for t in best
    ]
    head = [first, _value(tuning), *map(short, keys), *groups, *counts.values(), ""]
    numbers = (1, *range(len(head) - 1 - len(counts), len(head) - 1))
    return table(head, rows, 0, numbers=numbers, sortable=True, name="tried")


def _last(value: float) -> float:
    """Return what a value is sorted by: without one, last."""
    return math.inf if math.isnan(value) else value


def _value(tuning: Tuning) -> str:
    return f"validation {tuning.measure.title}"


def short(key: str) -> str:
    """Return a setting as a heading: a strategy's parameter goes without its section."""
    return key.removeprefix("strategy.")


def coordinates(tuning: Tuning) -> list[dict[str, Any]]:
    """Return what the page's script draws as parallel coordinates: the trials of each strategy,
    with an axis for all that differs between them and for their value. What was stopped early has
    no value to compare."""
    found = []
    for name in dict.fromkeys(t.group.get("strategy", "") for t in tuning.trials):
        own = [t for t in tuning.trials if t.group.get("strategy", "") == name and not t.error]
        longest = max((t.learned or 0 for t in own), default=0)
        own = [t for t in own if not math.isnan(t.value) and (t.learned or 0) == longest]
        axes = [axis for axis in _axes(tuning, own, name) if axis is not None]
        if len(own) > 1 and axes:
            values = [float(f"{tuning.measure.scale * t.value:.5g}") for t in own]
            label = f"{tuning.measure.name} {tuning.measure.unit}".strip()
            axes.append({"label": label, "values": values})
            less = tuning.measure.metric.sign < 0
            found.append({"name": name or "all", "axes": axes, "less": less})
    return found


def _axes(tuning: Tuning, trials: Sequence[Trial], name: str) -> Iterator[dict[str, Any] | None]:
    cells: list[Mapping[str, str]] = [{**t.group, **t.settings} for t in trials]
    for key in dict.fromkeys(key for cell in cells for key in cell):
        yield _axis(key, [cell.get(key, "-") for cell in cells], range_of(tuning.spec, key, name))


def _axis(key: str, texts: Sequence[str], drawn: Any) -> dict[str, Any] | None:
    """Return an axis: few values at even distances, many numbers by their size; None where nothing
    differs, and of too many words."""
    distinct = list(dict.fromkeys(texts))
    numbers = [number(text) for text in texts]
    known = [v for v in numbers if v is not None]
    if len(distinct) < 2:
        return None
    if len(known) == len(texts) and (drawn is not None or len(distinct) > MOST_VALUES):
        log = min(known) > 0 and max(known) > WIDE * min(known)
        return {"label": short(key), "values": known, "log": log}
    if len(distinct) > MOST_VALUES:
        return None
    if len(known) == len(texts):
        distinct.sort(key=float)
    places = [distinct.index(text) for text in texts]
    return {"label": short(key), "values": places, "ticks": [_cut(text) for text in distinct]}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
