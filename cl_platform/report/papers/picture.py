"""A table for a paper as a picture."""

from __future__ import annotations

import io
from typing import Any, Literal

from cl_platform.report.papers.contents import Cell, Contents
from cl_platform.report.papers.layout import Layout
from cl_platform.results.plots import new_figure

LINE, GAP, MARGIN = 0.27, 0.28, 0.12  # inches: of a line, between columns, around the table
SIZE, DOTS = 10, 200  # points of the letters, dots per inch of a png
DATES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same table, no date


def picture(table: Contents, layout: Layout, kind: Literal["png", "svg", "pdf"]) -> bytes:
    """Return the content of a file.

    Raises:
        BadInput: matplotlib is not installed.
    """
    content = io.BytesIO()
    made = table_figure(table, layout)
    made.savefig(content, format=kind, dpi=DOTS, metadata=DATES[kind])
    return content.getvalue()


def table_figure(table: Contents, layout: Layout) -> Any:
    """Draw a table with the rules of booktabs; the figure is as large as its text."""
    figure = new_figure(1, 1)
    figure.set_layout_engine("none")
    grid, rules = [[Cell(name) for name in table.head]], [0, 1]  # the lines under rules
    for block in table.blocks:
        grid += [[*map(Cell, words), *numbers] for words, numbers in block]
        rules.append(len(grid))
    texts = [[_text(figure, cell) for cell in line] for line in grid]
    caption = [_text(figure, Cell(layout.caption))] if layout.caption else []
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    inside, top = sum(widths) + GAP * (len(widths) - 1), MARGIN + LINE * len(grid)
    high = top + MARGIN + 1.2 * LINE * len(caption)
    figure.set_size_inches(max([inside, *map(_width, caption)]) + 2 * MARGIN, high)
    for text in caption:
        text.set(x=MARGIN, y=top + 0.5 * LINE)
    left = MARGIN
    for j, width in enumerate(widths):
        for i, line in enumerate(grid):
            _place(texts[i][j], line[j], left, width, top - LINE * (i + 0.68), j >= table.words)
        left += width + GAP
    for i in rules:
        heavy = i in (0, len(grid))
        _rule(figure, MARGIN, MARGIN + inside, top - LINE * i, 1.2 if heavy else 0.6)
    return figure


def _text(figure: Any, cell: Cell) -> Any:
    """Return a text whose place is in inches."""
    return figure.text(
        0,
        0,
        " ".join(cell.text.split()),
        fontsize=SIZE,
        fontweight="bold" if cell.mark == "best" else "normal",
        parse_math=False,
        transform=figure.dpi_scale_trans,
    )


def _width(text: Any) -> float:
    return float(text.get_window_extent().width / text.figure.dpi)


def _place(text: Any, cell: Cell, left: float, width: float, y: float, is_number: bool) -> None:
    right = left + width
    text.set(x=right if is_number else left, y=y, ha="right" if is_number else "left")
    if cell.mark == "second":
        _rule(text.figure, right - _width(text), right, y - 0.035, 0.7)


def _rule(figure: Any, left: float, right: float, y: float, width: float) -> None:
    from matplotlib.lines import Line2D

    at = figure.dpi_scale_trans
    line = Line2D([left, right], [y, y], color="black", linewidth=width, transform=at)
    figure.add_artist(line)
