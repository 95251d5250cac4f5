"""Runs on MLflow: a folder beside the records, or a server."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cl_platform.config.labels import label
from cl_platform.errors import BadInput
from cl_platform.storage.files import is_remote
from cl_platform.tracking.about import About
from cl_platform.tracking.pictures import as_image, as_picture
from cl_platform.tracking.schema_sink import SchemaSink
from cl_platform.tracking.values import Bars, Table, Value

MOST_OF_PARAMETER = 500  # characters that every server takes


class MLflow(SchemaSink):
    """Log to `uri`: see a folder with ``mlflow ui --backend-store-uri FOLDER``.

    Args:
        out: folder of the records.
        uri: of the server or folder; if empty ``MLFLOW_TRACKING_URI``, else the folder ``mlflow``
            beside the records.
        experiment: that the runs are listed under.
        log_every: steps that each point of the loss is the mean of.
        sweep: name of the sweep that its runs belong to.
    """

    library = "mlflow"

    def __init__(
        self,
        out: Path,
        uri: str = "",
        experiment: str = "cl-platform",
        log_every: int = 10,
        sweep: str = "",
    ) -> None:
        super().__init__(out, log_every, sweep)
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri and is_remote(out):
            raise BadInput(f"mlflow writes to folders, not to {out}: give its `uri`")
        self.uri = uri or (out / "mlflow").as_uri()
        if self.uri.startswith("file:"):  # MLflow would rather have a database
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", experiment)

    def begin(self, about: About) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(self.uri)
        known = self._client.get_experiment_by_name(self.experiment)
        place = known.experiment_id if known else self._client.create_experiment(self.experiment)
        self._id = self._run_of(place, about)
        for name, value in _flat(about.config):
            self._client.set_tag(self._id, f"config.{name}", label(value)[:MOST_OF_PARAMETER])

    def _run_of(self, place: str, about: About) -> str:
        """Return the MLflow id of a run: that of before if it goes on."""
        mine = f"tags.`clp.run_id` = '{about.run_id}'"
        if before := self._client.search_runs([place], mine, max_results=1):
            return str(before[0].info.run_id)
        tags = {"clp.run_id": about.run_id, "clp.point": about.point, "clp.sweep": about.sweep}
        tags |= {"clp.tags": ", ".join(about.tags)}
        return str(self._client.create_run(place, tags=tags, run_name=about.name).info.run_id)

    def log(self, axis: str, at: int, values: Mapping[str, Value]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._client.log_metric(self._id, name, value, step=at)
            elif isinstance(value, Bars):
                self._client.log_dict(self._id, {"values": value.values}, f"{name}/{at}.json")
            elif isinstance(value, Table):
                content = {"columns": value.columns, "data": value.rows}
                self._client.log_dict(self._id, content, f"{name}.json")
            else:
                self._client.log_image(self._id, as_image(as_picture(value)), f"{name}.png")

    def conclude(self, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, name, value)
            elif math.isfinite(value):
                self._client.log_metric(self._id, name, value)

    def end(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings by their dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
