"""A result as a notebook shows it: its matrix as a heat map and its metrics, in one piece of HTML.

Every colour that is not the notebook's own has its text colour with it, so that light and dark
themes are the same to it; nothing is loaded and nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from cl_platform.core.matrix import AccuracyMatrix, evenly

MOST_ROWS = 100  # of long streams, evenly apart
WRITTEN = 20  # experiences whose accuracies are written into their cells
NAME = 18  # characters of a name
# Viridis at 0, 0.1, ..., 1, as in the figures.
VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
    "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
DARK = 6  # of these are, and have white text
CELL = (
    "padding:3px 6px;text-align:right;border:0;white-space:nowrap;font-variant-numeric:tabular-nums"
)
LEFT = "padding:3px 8px 3px 0;text-align:left;border:0;white-space:nowrap;font-weight:normal"


def result_html(
    title: tuple[str, str],
    about: str,
    matrix: AccuracyMatrix,
    masks: Sequence[str],
    metrics: Mapping[str, float],
    shown: Sequence[str],
) -> str:
    """Return the HTML of a result.

    Args:
        title: strategy and stream.
        about: a line under it.
        matrix: under the first mask.
        masks: with metrics; those of all but the first have it as a prefix.
        shown: the metrics that are, by their names without prefix.
    """
    name, stream = map(escape, title)
    return (
        f'<div style="max-width:100%"><div><b>{name}</b> on <b>{stream}</b></div>'
        f'<div style="opacity:.7;font-size:90%">{escape(about)}</div>'
        '<div style="display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start">'
        f"{_matrix(matrix, masks[0])}{_metrics(metrics, masks, shown)}</div></div>"
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    styles = [LEFT, *[CELL] * (len(head) - 1)]
    top = "".join(
        f'<th style="{style};opacity:.7">{escape(cell)}</th>'
        for style, cell in zip(styles, head, strict=True)
    )
    body = "".join(f"<tr>{_cells(styles, line)}</tr>" for line in lines)
    return _framed(f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>")


def _cells(styles: Sequence[str], line: Sequence[str]) -> str:
    pairs = zip(styles, line, strict=True)
    return "".join(f'<td style="{style}">{escape(cell)}</td>' for style, cell in pairs)


def _framed(rows: str) -> str:
    """Return a table that scrolls by itself where it is too wide."""
    style = "border-collapse:collapse;font-size:inherit;margin:4px 0"
    return (
        f'<div style="overflow-x:auto;max-width:100%"><table style="{style}">{rows}</table></div>'
    )


def _matrix(matrix: AccuracyMatrix, mask: str) -> str:
    """Return the accuracy matrix as a heat map."""
    names, n = matrix.names, len(matrix)
    gap = '<td style="border:0;padding:0 4px"></td>'  # before those held out
    learned = n - len(matrix.held_out)

    def line(cells: Sequence[str]) -> str:
        return (
            "".join(cells) if learned == n else "".join([*cells[:learned], gap, *cells[learned:]])
        )

    head = line(
        [
            f'<th style="{CELL};font-weight:normal;opacity:.7" title="{escape(name)}">'
            f"{j if n <= WRITTEN else ''}</th>"
            for j, name in enumerate(names, 1)
        ]
    )
    labels = [_short(label) for label in matrix.labels()]
    shown = evenly(len(labels), MOST_ROWS)
    rows = "".join(
        f'<tr><th style="{LEFT}">{escape(labels[i])}</th>'
        f"{line([_cell(v, names[j], n) for j, v in enumerate(matrix.values[i].tolist())])}</tr>"
        for i in shown
    )
    caption = f"accuracy in % on experience 1..{n} (mask {mask}){held_out_words(matrix, mask)}"
    return _framed(
        f'<caption style="text-align:left;caption-side:top;padding:0;opacity:.7">{caption}'
        f'</caption><thead><tr><th style="{LEFT};opacity:.7">after</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody>"
    )


def _cell(accuracy: float, name: str, n: int) -> str:
    level = round(10 * accuracy)
    text = "#ffffff" if level < DARK else "#000000"
    number = f"{100 * accuracy:.1f}" if n <= 10 else f"{100 * accuracy:.0f}"
    return (
        f'<td style="{CELL};background:{VIRIDIS[level]};color:{text}" '
        f'title="{escape(name)}: {100 * accuracy:.1f} %">{number if n <= WRITTEN else ""}</td>'
    )


def _metrics(metrics: Mapping[str, float], masks: Sequence[str], shown: Sequence[str]) -> str:
    """Return some metrics, a row each, with a column per mask."""
    prefixes = ["", *(f"{mask}/" for mask in masks[1:])]
    lines = [[m, *(_number(metrics.get(prefix + m)) for prefix in prefixes)] for m in shown]
    return table(["metric, by mask", *masks], lines)


def held_out_words(matrix: AccuracyMatrix, mask: str) -> str:
    """Return what a caption says of columns held out; nothing where there are none."""
    if not matrix.held_out:
        return ""
    first, n = matrix.held_out[0] + 1, len(matrix)
    which = f"; {first}..{n} held out" if first < n else f"; {n} held out"
    return f"{which}, 0 by construction" if mask == "seen" else which


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "-" if math.isnan(value) else f"{value:.4f}"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
