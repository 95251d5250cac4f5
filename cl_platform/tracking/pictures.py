"""Matplotlib figures as W&B takes them, and the accuracy matrix as one."""

from __future__ import annotations

from typing import Any

import numpy as np

from cl_platform.result import OWN_MASK, Result


def as_image(figure: Any) -> Any:
    """A matplotlib figure as a PIL image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)  # without pyplot: no global state, no display
    canvas.figure.set_dpi(150)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB")


def heat_map(result: Result) -> Any:
    """The accuracy matrix under the scenario's own mask as a matplotlib figure."""
    from matplotlib.figure import Figure

    values = 100 * result.matrix.values
    rows, columns = values.shape
    figure = Figure(figsize=(2.5 + 0.55 * columns, 1.6 + 0.45 * rows), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_xticks(range(columns), [str(j + 1) for j in range(columns)])
    axes.set_yticks(range(rows), ["untrained", *(str(i) for i in range(1, rows))])
    axes.set_xlabel("experience, in the order of learning")
    axes.set_ylabel("after experience")
    mask = OWN_MASK[result.scenario]
    axes.set_title(
        f"{result.config['strategy']['name']} on {result.stream}: accuracy in % ({mask})",
        fontsize=9,
    )
    if columns <= 20:
        for i in range(rows):
            for j in range(columns):
                colour = "white" if values[i, j] < 60 else "black"
                axes.text(
                    j, i, f"{values[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=8
                )
    figure.colorbar(image, ax=axes)
    return figure
