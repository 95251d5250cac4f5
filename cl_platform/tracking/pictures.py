"""Matplotlib figures, and pictures of them, as dashboards take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cl_platform.config.labels import label
from cl_platform.results.plots import new_figure
from cl_platform.tracking.values import Confusion, Lines, Picture, Table

MOST_NAMES = 10  # of curves in a legend


def as_image(figure: Any) -> Any:
    """Return a matplotlib figure as a PIL image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)  # without pyplot: no global state, no display
    canvas.figure.set_dpi(150)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB")


def as_picture(value: Picture | Lines | Table | Confusion) -> Any:
    """Return a figure of a value that a library has no form of its own for."""
    if isinstance(value, Picture):
        return value.figure
    figure = new_figure(6, 4)
    axes = figure.subplots()
    if isinstance(value, Lines):
        for name, ys in value.curves.items():
            axes.plot(value.at, [np.nan if y is None else y for y in ys], marker=".", label=name)
        axes.set_xlabel(value.axis)
        axes.set_title(value.title)
        if len(value.curves) <= MOST_NAMES:
            axes.legend(fontsize=7)
        return figure
    if isinstance(value, Confusion):
        axes.imshow(value.counts, cmap="viridis")
        axes.set_xlabel("taken for")
        axes.set_ylabel("class")
        return figure
    axes.axis("off")
    cells = [[label(cell) for cell in row] for row in value.rows]
    axes.table(cells, colLabels=value.columns, loc="center")
    return figure
