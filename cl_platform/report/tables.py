"""Tables for papers and spreadsheets: the leaderboard as Markdown or LaTeX, any frame as CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cl_platform.report.leaderboard import Measure, Row, measures_of, rows_of, shown_axes
from cl_platform.report.runs import Runs
from cl_platform.results.notebook import table

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 50  # in a notebook
NOTE = (
    "Mean with 95 % interval over seeds; bold: the best of its stream, and what cannot be told "
    "from it (paired over seeds, p > 0.05 after Holm's correction)."
)
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def markdown(rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    """Return a pipe table."""
    head, lines = _cells(rows, measures, lambda text: f"**{text}**", literal)
    axes = len(head) - len(measures)
    rule = ["---"] * axes + ["---:"] * len(measures)
    table = [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]
    return "\n".join([*table, "", NOTE, ""])


def latex(rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    r"""Return a ``tabular`` with the rules of the package booktabs."""
    head, lines = _cells(rows, measures, lambda text: rf"\textbf{{{text}}}", _escaped)
    axes = len(head) - len(measures)
    # A bracket after a rule or a line's end would be taken for its optional argument.
    body = [rf"{'{}' if line[0].startswith('[') else ''}{' & '.join(line)} \\" for line in lines]
    return "\n".join(
        [
            f"% {NOTE}",
            rf"\begin{{tabular}}{{{'l' * axes}{'r' * len(measures)}}}",
            r"\toprule",
            rf"{' & '.join(head)} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def leaderboard(runs: Runs) -> str:
    """Return the leaderboard as HTML for a notebook, at most `MOST_ROWS` of it."""
    rows, measures = rows_of(runs), [m for m in measures_of(runs) if m.listed]
    head, lines = _cells(rows, measures, str, str)
    axes = len(head) - len(measures)
    joined = [[", ".join(line[:axes]), *line[axes:]] for line in lines[:MOST_ROWS]]
    more = f"<div>and {len(rows) - MOST_ROWS} more</div>" if len(rows) > MOST_ROWS else ""
    return table([", ".join(head[:axes]), *head[axes:]], joined) + more


def csv(frame: pd.DataFrame) -> str:
    """Return a data frame as CSV; no spreadsheet takes its texts for formulas."""

    def text(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=@+-") else value

    return frame.map(text).rename(columns=text).to_csv(index=False)


def _cells(
    rows: Sequence[Row],
    measures: Sequence[Measure],
    bold: Callable[[str], str],
    escape: Callable[[str], str],
) -> tuple[list[str], list[list[str]]]:
    axes = shown_axes(rows)
    lines = []
    for row in rows:
        numbers = [m.text(row.values[m.key]) for m in measures]
        if row.best:
            numbers[0] = bold(numbers[0])
        lines.append([*(escape(row.cell(axis)) for axis in axes), *numbers])
    return [escape(name) for name in (*axes, *(m.title for m in measures))], lines


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in text)


def literal(text: str) -> str:
    """Escape text for Markdown and the HTML in it."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
