"""A result as Python shows it: in five lines of text, and in a notebook as one piece of HTML with
its matrix as a heat map and its metrics.

Every colour that is not the notebook's own has its text colour with it, so that light and dark
themes are the same to it; nothing is loaded and nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

from cl_platform.core.matrix import OWN_MASK, AccuracyMatrix, evenly
from cl_platform.metrics.matrix_metrics import accuracy_so_far

MOST_ROWS = 100  # of long streams, evenly apart
WRITTEN = 20  # experiences whose accuracies are written into their cells
NAME = 18  # characters of a name
TOLD = ("average_accuracy", "forgetting", "average_incremental_accuracy")  # in a line of text
MEANS = 12  # accuracies in a line of text
ZERO = "0*"
ZERO_NOTE = "* 0 by construction: with mask seen, classes not learned yet are never predicted"
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


class Shown(Protocol):
    """What is read of a :class:`cl_platform.results.result.Result`."""

    @property
    def run_id(self) -> str: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def stream(self) -> str: ...
    @property
    def scenario(self) -> str: ...
    @property
    def matrices(self) -> dict[str, AccuracyMatrix]: ...
    @property
    def metrics(self) -> dict[str, float]: ...
    @property
    def cost(self) -> dict[str, float]: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def matrix(self) -> AccuracyMatrix: ...

    def shown_metrics(self) -> list[str]: ...


def result_text(result: Shown) -> str:
    """Return a result in five lines."""
    metrics, matrix = result.metrics, result.matrix
    names = [n for n in TOLD if n in metrics and math.isfinite(metrics[n])]
    numbers = [f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names]
    means = [f"{100 * mean:.1f}" for mean in accuracy_so_far(matrix)]
    means = means if len(means) <= MEANS else [*means[:2], "...", *means[2 - MEANS :]]
    name, stream = result.config["strategy"]["name"], result.stream
    lines = [
        f"{name} on {stream}",
        _about(result),
        f"{', '.join(numbers)} (mask {OWN_MASK[result.scenario]})",
        f"mean accuracy so far in %: {' '.join(means)}",
        f"in {result.path}" if result.path is not None else "in no folder (out=None)",
    ]
    return "\n".join(lines)


def _about(result: Shown) -> str:
    config, cost = result.config, result.cost
    return (
        f"{result.scenario}-incremental, order {config['curriculum']['name']}, model "
        f"{config['model']['name']}, seed {config['seed']}, run {result.run_id}; "
        f"{cost['steps']:,} steps in {cost['train_seconds']:.1f} s"
    )


def result_html(result: Shown) -> str:
    """Return the HTML of a result."""
    own = OWN_MASK[result.scenario]
    masks = [own, *(mask for mask in result.matrices if mask != own)]
    name, stream = map(escape, (result.config["strategy"]["name"], result.stream))
    return (
        f'<div style="max-width:100%"><div><b>{name}</b> on <b>{stream}</b></div>'
        f'<div style="opacity:.7;font-size:90%">{escape(_about(result))}</div>'
        '<div style="display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start">'
        f"{_matrix(result.matrix, own)}{_metrics(result, masks)}</div></div>"
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


def _metrics(result: Shown, masks: Sequence[str]) -> str:
    """Return the metrics that people see, a row each, with a column per mask."""
    rows = metric_rows(result, masks)
    note = any(ZERO in row for row in rows)
    said = f'<div style="opacity:.7;font-size:90%">{escape(ZERO_NOTE)}</div>' if note else ""
    return f"<div>{table(['metric, by mask', *masks], rows)}{said}</div>"


def held_out_words(matrix: AccuracyMatrix, mask: str) -> str:
    """Return what a caption says of columns held out; nothing where there are none."""
    if not matrix.held_out:
        return ""
    first, n = matrix.held_out[0] + 1, len(matrix)
    which = f"; {first}..{n} held out" if first < n else f"; {n} held out"
    return f"{which}, 0 by construction" if mask == "seen" else which


def metric_rows(result: Shown, masks: Sequence[str]) -> list[list[str]]:
    """Return the metrics that people see, a row each: its name, and its value by mask as text.

    Text is `-` for what is undefined, empty where the mask does not have it, and ZERO where nothing
    but 0 is possible.
    """

    def text(name: str, mask: str) -> str:
        key = name if mask == OWN_MASK[result.scenario] else f"{mask}/{name}"
        value = result.metrics.get(key)
        if value is None:
            return ""
        if (name, mask, value) == ("forward_transfer", "seen", 0):
            return ZERO
        return "-" if math.isnan(value) else f"{value:.4f}"

    return [[name, *(text(name, mask) for mask in masks)] for name in result.shown_metrics()]


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
