"""Tables for notebooks and spreadsheets: the leaderboard as HTML, any frame as CSV."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cl_platform.report.leaderboard import measures_of, rows_of, shown_axes
from cl_platform.report.runs import Runs
from cl_platform.results.notebook import table

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 50  # in a notebook


def leaderboard(runs: Runs) -> str:
    """Return the leaderboard as HTML for a notebook, at most `MOST_ROWS` of it."""
    rows, measures = rows_of(runs), [m for m in measures_of(runs) if m.listed]
    axes = shown_axes(rows)
    lines = [
        [", ".join(row.cell(axis) for axis in axes), *(m.text(row.values[m.key]) for m in measures)]
        for row in rows[:MOST_ROWS]
    ]
    more = f"<div>and {len(rows) - MOST_ROWS} more</div>" if len(rows) > MOST_ROWS else ""
    return table([", ".join(axes), *(m.title for m in measures)], lines) + more


def csv(frame: pd.DataFrame) -> str:
    """Return a data frame as CSV; no spreadsheet takes its texts for formulas."""

    def text(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=@+-") else value

    return frame.map(text).rename(columns=text).to_csv(index=False)


def literal(text: str) -> str:
    """Escape text for Markdown and the HTML in it."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
