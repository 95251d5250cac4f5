"""What stands in a table for a paper: rows, columns, and which numbers are marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cl_platform.config.registry import suggestion
from cl_platform.errors import BadInput
from cl_platform.metrics.comparison import Scores, against_best
from cl_platform.report.leaderboard import (
    SIGNIFICANT,
    Measure,
    Row,
    about_stream,
    measures_of,
    rows_of,
    shown_axes,
)
from cl_platform.report.papers.layout import Layout
from cl_platform.report.points import by_point
from cl_platform.report.runs import Runs

MOST_ROWS = 100  # beyond it orders are put together
ACCURACY = Measure("average_accuracy")
SPREADS = {"interval": "with its 95 % interval", "sd": "± standard deviation", "none": ""}
Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Cell:
    """A number as text, and whether it is among the best of its stream, or next to them."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Contents:
    """A table.

    Args:
        head: names of its columns; the first `words` hold words, the others numbers.
        blocks: lines that belong together, such as those of a stream: words, then numbers.
        note: what the numbers are, and the marks.
    """

    head: list[str]
    words: int
    blocks: list[list[tuple[list[str], list[Cell]]]]
    note: str


def contents(runs: Runs, layout: Layout) -> Contents:
    """Return the table of the runs of a folder.

    Raises:
        BadInput: these runs have no such metric.
    """
    measures = _measures(runs, layout)
    together = len(by_point(runs.frame)) > MOST_ROWS
    among = list(dict.fromkeys([ACCURACY, *measures]))
    rows = rows_of(runs, together=together, measures=among)
    write = _by_stream if layout.by == "stream" else _by_row
    return write(runs, rows, measures, layout)


def _measures(runs: Runs, layout: Layout) -> list[Measure]:
    if not layout.columns:
        return [ACCURACY] if layout.by == "stream" else [m for m in measures_of(runs) if m.listed]
    names = dict.fromkeys(name for result in runs.results for name in result.metrics)
    names |= dict.fromkeys(name for name in runs.frame.columns if name.startswith("cost."))
    known = [Measure(name) for name in names if runs.frame[name].notna().any()]
    return [_found(name, known, measures_of(runs)) for name in layout.columns]


def _found(given: str, known: Sequence[Measure], shown: Sequence[Measure]) -> Measure:
    """Return the measure of this name, or the only one of this title."""
    named = [m for m in known if m.key == given] or [m for m in known if m.name == given]
    if len(named) == 1:
        return named[0]
    some = suggestion(given, [m.key for m in shown if m.listed])
    raise BadInput(f"column {given!r}: these runs have no such metric.{some}, ...")


def _by_row(
    runs: Runs, rows: Sequence[Row], measures: Sequence[Measure], layout: Layout
) -> Contents:
    axes = shown_axes(rows)
    blocks = []
    for stream in dict.fromkeys(row.stream for row in rows):
        own = [row for row in rows if row.stream == stream]
        columns = [_column(runs, own, m, layout) for m in measures]
        lines = [[row.cell(a) for a in axes] for row in own]
        blocks.append(list(zip(lines, map(list, zip(*columns, strict=True)), strict=True)))
    head = [*axes, *(m.title for m in measures)]
    return Contents(head, len(axes), blocks, _note(rows, layout))


def _by_stream(
    runs: Runs, rows: Sequence[Row], measures: Sequence[Measure], layout: Layout
) -> Contents:
    (measure,) = measures
    axes = [axis for axis in shown_axes(rows) if not about_stream(axis)]
    streams = sorted({r.stream for r in rows}, key=lambda s: _first_run(rows, s))
    lines: dict[tuple[str, ...], dict[str, Cell]] = {}
    values: dict[tuple[str, ...], list[float]] = {}
    for stream in streams:
        own = [row for row in rows if row.stream == stream]
        for row, cell in zip(own, _column(runs, own, measure, layout), strict=True):
            key = tuple(row.cell(axis) for axis in axes)
            lines.setdefault(key, {})[stream] = cell
            values.setdefault(key, []).append(row.values[measure.key].value)

    def place(key: tuple[str, ...]) -> tuple[int, float]:
        mean = (measure.metric.sign or 1) * float(np.mean(values[key]))
        return -len(values[key]), math.inf if math.isnan(mean) else -mean

    block = [
        ([*key], [lines[key].get(stream, Cell("-")) for stream in streams])
        for key in sorted(lines, key=place)
    ]
    note = f"{measure.title}. {_note(rows, layout)}"
    return Contents([*axes, *streams], len(axes), [block], note)


def _first_run(rows: Sequence[Row], stream: str) -> int:
    return min(i for row in rows if row.stream == stream for i in row.indices)


def _column(runs: Runs, rows: Sequence[Row], measure: Measure, layout: Layout) -> list[Cell]:
    """Return a metric of the rows of one stream, with the best and the next ones marked."""
    frame = runs.frame[["seed", measure.key]]
    seeds = [
        frame.iloc[list(row.indices)].groupby("seed")[measure.key].mean().dropna() for row in rows
    ]
    marks = _marks([one.to_dict() for one in seeds], _sign(measure))
    texts = [
        _text(row, measure, float(one.std()), layout) for row, one in zip(rows, seeds, strict=True)
    ]
    return [Cell(*both) for both in zip(texts, marks, strict=True)]


def _sign(measure: Measure) -> int:
    return 0 if measure.key.startswith("cost.") else measure.metric.sign


def _marks(scores: Sequence[Mapping[object, float]], sign: int) -> list[Mark]:
    """Return the marks of rows by their scores over seeds; none if neither direction is better."""
    found: list[Mark] = [""] * len(scores)
    signed: dict[str, Scores] = {
        str(i): {seed: sign * value for seed, value in own.items()}
        for i, own in enumerate(scores)
        if sign and own
    }
    if not signed:
        return found
    best, others = against_best(signed)
    alike = {best, *(name for name, (_, p) in others.items() if p > SIGNIFICANT)}
    means = {n: math.fsum(own.values()) / len(own) for n, own in signed.items() if n not in alike}
    second = {name for name, mean in means.items() if mean == max(means.values())}
    for name in signed:
        found[int(name)] = "best" if name in alike else "second" if name in second else ""
    return found


def _text(row: Row, measure: Measure, sd: float, layout: Layout) -> str:
    value = row.values[measure.key]
    shown = _number(value.value, measure, layout.digits)
    if layout.spread == "interval" and not math.isnan(value.low):
        ends = (_number(end, measure, layout.digits) for end in (value.low, value.high))
        return f"{shown} [{', '.join(ends)}]"
    if layout.spread == "sd" and not math.isnan(sd):
        return f"{shown} ± {_number(sd, measure, layout.digits)}"
    return shown


def _number(value: float, measure: Measure, digits: int | None) -> str:
    if digits is None or math.isnan(value):
        return measure.shown(value)
    return f"{round(value * measure.scale, digits) + 0.0:,.{digits}f}"


def _note(rows: Sequence[Row], layout: Layout) -> str:
    counts = {len(row.seeds) for row in rows}
    fewest, most = min(counts), max(counts)
    seeds = (
        f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
    )
    words = ["Mean", SPREADS[layout.spread] if most > 1 else "", f"over {seeds};"]
    return (
        f"{' '.join(filter(None, words))} bold: the best of its stream, and what cannot be told "
        f"from it (paired over seeds, p > {SIGNIFICANT} after Holm's correction); underlined: the "
        "next one."
    )
