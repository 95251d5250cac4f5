"""Local dashboards without an account, by trackio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_platform.tracking.about import About
from cl_platform.tracking.pictures import as_image, as_picture
from cl_platform.tracking.schema_sink import SchemaSink
from cl_platform.tracking.values import Bars, Table, Value


class Trackio(SchemaSink):
    """Log to trackio's own folder (``TRACKIO_DIR``): see it with ``trackio show``.

    Args:
        out: folder of the records.
        project: that the runs are listed under.
        log_every: steps that each point of the loss is the mean of.
        sweep: name of the sweep that its runs belong to.
    """

    library = "trackio"

    def __init__(
        self, out: Path, project: str = "cl-platform", log_every: int = 10, sweep: str = ""
    ) -> None:
        super().__init__(out, log_every, sweep)
        self.project = project

    def begin(self, about: About) -> None:
        import trackio

        self._run: Any = trackio.init(
            self.project,
            name=f"{about.name} {about.run_id[:6]}",
            group=about.point,
            config=about.config,
            resume="allow",
            embed=False,
        )

    def log(self, axis: str, at: int, values: Mapping[str, Value]) -> None:
        import trackio

        logged: dict[str, Any] = {axis: at}
        for name, value in values.items():
            if isinstance(value, int | float):
                logged[name] = value
            elif isinstance(value, Bars):
                logged[name] = trackio.Histogram(np_histogram=value.histogram())
            elif isinstance(value, Table):
                rows = [[str(cell) for cell in row] for row in value.rows]
                logged[name] = trackio.Table(columns=value.columns, data=rows)
            else:
                logged[name] = trackio.Image(as_image(as_picture(value)))
        self._run.log(logged)

    def conclude(self, values: Mapping[str, float | str]) -> None:
        finite = {n: v for n, v in values.items() if isinstance(v, str) or math.isfinite(v)}
        self._run.log({f"summary/{name}": value for name, value in finite.items()})

    def end(self, failed: bool) -> None:
        self._run.finish()
