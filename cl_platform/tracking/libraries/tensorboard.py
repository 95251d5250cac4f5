"""Event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cl_platform.core.json_text import json_text
from cl_platform.errors import BadInput
from cl_platform.storage.files import is_remote
from cl_platform.tracking.about import About
from cl_platform.tracking.pictures import as_image, as_picture
from cl_platform.tracking.schema_sink import SchemaSink
from cl_platform.tracking.values import Bars, Value


class TensorBoard(SchemaSink):
    """Write event files to `folder`: see them with ``tensorboard --logdir FOLDER``.

    Args:
        out: folder of the records.
        folder: of the event files, ``tensorboard`` beside the records if empty.
        log_every: steps that each point of the loss is the mean of.
        sweep: name of the sweep that its runs belong to.
    """

    library = "tensorboard"

    def __init__(self, out: Path, folder: str = "", log_every: int = 10, sweep: str = "") -> None:
        super().__init__(out, log_every, sweep)
        if not folder and is_remote(out):
            raise BadInput(f"tensorboard writes to folders, not to {out}: give its `folder`")
        self.folder = Path(folder) if folder else out / "tensorboard"

    def begin(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder / about.run_id))
        self._writer.add_text("name", about.name)
        self._writer.add_text("tags", ", ".join(about.tags))
        self._writer.add_text("config", f"```json\n{json_text(about.config)}\n```")

    def log(self, axis: str, at: int, values: Mapping[str, Value]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, at)
            elif isinstance(value, Bars):
                self._bars(name, value, at)
            else:
                image = np.asarray(as_image(as_picture(value)))
                self._writer.add_image(name, image, at, dataformats="HWC")

    def _bars(self, name: str, bars: Bars, at: int) -> None:
        heights, edges = bars.histogram()
        limits = [float(edge) for edge in edges[1:]]
        total, places = float(heights.sum()), edges[:-1]
        sums = float((heights * places).sum()), float((heights * places**2).sum())
        self._writer.add_histogram_raw(
            name, 0.0, limits[-1], total, *sums, limits, heights.tolist(), at
        )

    def conclude(self, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
            add(f"summary/{name}", value)

    def end(self, failed: bool) -> None:
        self._writer.close()
