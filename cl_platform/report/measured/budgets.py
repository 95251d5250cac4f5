"""Accuracy at equal cost: a section of the report about runs with a budget."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from cl_platform.report.leaderboard import Measure, Row, shown_axes
from cl_platform.report.page import paragraph, table
from cl_platform.results.budget import limits_of
from cl_platform.results.result import Result


def mark(row: Row) -> str:
    """Return what a row of the leaderboard says of the limits that it is beyond, as HTML."""
    return f" <small>over budget: {html.escape(', '.join(row.over))}</small>" if row.over else ""


def sections(rows: Sequence[Row], results: Sequence[Result]) -> Iterator[str]:
    """Yield the section, for the rows of the leaderboard that had a budget."""
    lines = [line for row in rows for line in _lines(row, shown_axes(rows), results)]
    if not lines:
        return
    axes = shown_axes(rows)
    head = [*axes, "limit", "budget", "used", "used %", "accuracy %", "accuracy % per unit used"]
    yield "<h2>Equal budgets</h2>"
    yield table(head, lines, words=len(axes) + 1)
    yield paragraph(
        "Means over the runs of a row. Nothing stops a run at its budget; a row with a run that "
        "used more is marked here and in the leaderboard. Memory is what a state holds beside the "
        "model: stored samples, logits, adapters, old networks, moments.",
        soft=True,
    )


def _lines(row: Row, axes: Sequence[str], results: Sequence[Result]) -> Iterator[list[str]]:
    """Yield a line for each limit that all runs of a row have in common."""
    runs = [results[i] for i in row.indices]
    accuracy = 100 * row.values["average_accuracy"].value
    common: Mapping[str, float] = limits_of(runs[0].config)
    for name, limit in common.items():
        measure = Measure(f"cost.{name}")
        used = fmean(run.cost[name] for run in runs)
        per = f"{accuracy / (used * measure.scale):,.3g}" if used else "-"
        share = f"{100 * used / limit:.0f}{' (over)' if name in row.over else ''}"
        shown = [f"{measure.shown(value)} {measure.unit}".strip() for value in (limit, used)]
        yield [*map(row.cell, axes), name, *shown, share, f"{accuracy:.1f}", per]
