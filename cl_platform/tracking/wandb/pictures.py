"""Matplotlib figures as W&B takes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_image(figure: Any) -> Any:
    """Return a matplotlib figure as a PIL image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)  # without pyplot: no global state, no display
    canvas.figure.set_dpi(150)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB")
