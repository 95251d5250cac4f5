"""A result as a notebook shows it: its matrix as a heat map and its metrics, in one piece of HTML.

Every colour that is not the notebook's own has its text colour with it, so that light and dark
themes are the same to it; nothing is loaded and nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from cl_platform.core.matrix import OWN_MASK

if TYPE_CHECKING:
    from cl_platform.results.result import Result

WRITTEN = 20  # experiences whose accuracies are written into their cells
NAME = 18  # characters of a name
# Viridis at 0, 0.1, ..., 1, as in the figures.
VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
    "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
DARK = 6  # of these are, and have white text
CELL = "padding:3px 6px;text-align:right;border:0;font-variant-numeric:tabular-nums"
LEFT = "padding:3px 8px 3px 0;text-align:left;border:0;white-space:nowrap;font-weight:normal"


def result_html(result: Result) -> str:
    """Return the HTML of a result."""
    name, stream = result.config["strategy"]["name"], result.stream
    model, order = (result.config[part]["name"] for part in ("model", "curriculum"))
    about = (
        f"{result.scenario}-incremental, order {order}, model {model}, seed "
        f"{result.config['seed']}, run {result.run_id}"
    )
    cost = f"{result.cost['steps']:,} steps in {result.cost['train_seconds']:.1f} s"
    return (
        f'<div style="max-width:100%"><div><b>{escape(name)}</b> on <b>{escape(stream)}</b></div>'
        f'<div style="opacity:.7;font-size:90%">{escape(about)}; {cost}</div>'
        '<div style="display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start">'
        f"{_matrix(result)}{_metrics(result)}</div></div>"
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    styles = [LEFT, *[CELL] * (len(head) - 1)]
    top = "".join(
        f'<th style="{style};opacity:.7">{escape(cell)}</th>'
        for style, cell in zip(styles, head, strict=True)
    )
    body = "".join(f"<tr>{_cells(styles, line)}</tr>" for line in lines)
    return (
        '<div style="overflow-x:auto;max-width:100%"><table style="border-collapse:collapse;'
        f'margin:4px 0"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(styles: Sequence[str], line: Sequence[str]) -> str:
    pairs = zip(styles, line, strict=True)
    return "".join(f'<td style="{style}">{escape(cell)}</td>' for style, cell in pairs)


def _matrix(result: Result) -> str:
    """Return the accuracy matrix under the scenario's own mask as a heat map."""
    values, names = result.matrix.values, result.matrix.names
    n = len(result.matrix)
    head = "".join(
        f'<th style="{CELL};font-weight:normal;opacity:.7" title="{escape(name)}">'
        f"{j if n <= WRITTEN else ''}</th>"
        for j, name in enumerate(names, 1)
    )
    labels = ["untrained", *(f"{i} {_short(name)}" for i, name in enumerate(names, 1))]
    rows = "".join(
        f'<tr><th style="{LEFT}">{escape(label)}</th>'
        f"{''.join(_cell(v, names[j], n) for j, v in enumerate(row))}</tr>"
        for label, row in zip(labels, values.tolist(), strict=True)
    )
    caption = f"accuracy in % on experience 1..{n} (mask {OWN_MASK[result.scenario]})"
    return (
        '<div style="overflow-x:auto;max-width:100%"><table style="border-collapse:collapse;'
        f'margin:4px 0"><caption style="text-align:left;caption-side:top;padding:0;opacity:.7">'
        f'{caption}</caption><thead><tr><th style="{LEFT};opacity:.7">after</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(accuracy: float, name: str, n: int) -> str:
    level = round(10 * accuracy)
    text = "#ffffff" if level < DARK else "#000000"
    number = f"{100 * accuracy:.1f}" if n <= 10 else f"{100 * accuracy:.0f}"
    return (
        f'<td style="{CELL};background:{VIRIDIS[level]};color:{text}" '
        f'title="{escape(name)}: {100 * accuracy:.1f} %">{number if n <= WRITTEN else ""}</td>'
    )


def _metrics(result: Result) -> str:
    """Return the metrics, a row each, with a column per mask."""
    own = OWN_MASK[result.scenario]
    masks = [own, *(m for m in result.matrices if m != own)]
    shown = [m for m in result.metrics if not m.startswith("curriculum.") and "/" not in m]
    lines = [
        [m, *(_number(result.metrics.get(m if k == own else f"{k}/{m}")) for k in masks)]
        for m in shown
    ]
    return table(["metric, by mask", *masks], lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "-" if math.isnan(value) else f"{value:.4f}"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
