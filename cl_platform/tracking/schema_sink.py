"""What all dashboards have in common: events become the names of the schema."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from cl_platform.core.matrix import MASKS, AccuracyMatrix
from cl_platform.results.plots import matrix_figure
from cl_platform.results.result import Result
from cl_platform.tracking.about import About, about
from cl_platform.tracking.losses import LossCurve
from cl_platform.tracking.rows import Rows
from cl_platform.tracking.sinks import Event
from cl_platform.tracking.values import Bars, Confusion, Lines, Picture, Table, Value

EXPERIENCE, STEP = "experience", "train/step"  # the axes of the schema
PICTURE_SECONDS = 30.0  # between two heat maps of a run, but for the last
MOST_TABLES = 50  # experiences of a run whose matrix is a table after each of them


class SchemaSink(ABC):
    """A sink of a library: it implements `begin`, `log`, `conclude` and `end`, and gets the names
    of :mod:`cl_platform.tracking.schema`.

    Args:
        out: folder of the records.
        log_every: steps that each point of the loss is the mean of.
        sweep: name of the sweep that its runs belong to.
    """

    library = ""  # that must be installed

    def __init__(self, out: str | Path, log_every: int = 10, sweep: str = "") -> None:
        self.out = out
        self.sweep = sweep
        self.about: About | None = None
        self._losses = LossCurve(log_every)
        self._drawn = 0.0

    @abstractmethod
    def begin(self, about: About) -> None:
        """Start a run, or resume the one with its id."""

    @abstractmethod
    def log(self, axis: str, at: int, values: Mapping[str, Value]) -> None:
        """Log values at a place of an axis, ``experience`` or ``train/step``."""

    @abstractmethod
    def conclude(self, values: Mapping[str, float | str]) -> None:
        """Log values of the whole run, nan among them."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """End a run that was begun."""

    def emit(self, event: Event) -> None:
        handler: Callable[[Event], None] | None
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:  # a later version may emit more
            handler(event)

    def close(self) -> None:
        """End a run that was interrupted."""
        if self.about is not None:
            self._end(failed=True)

    def _end(self, failed: bool) -> None:
        self.about = None
        self.end(failed)

    def _on_start(self, event: Event) -> None:
        self._rows, self._n = Rows(event), len(event["experiences"])
        self._title = f"{event['config']['strategy']['name']} on {event['stream']}"
        self._drawn = time.monotonic()
        self.about = about(event, self.sweep)
        self.begin(self.about)

    def _on_progress(self, event: Event) -> None:
        for step, values in self._losses.points(event):
            self.log(STEP, step, values)

    def _on_within(self, event: Event) -> None:
        """Log accuracies that were measured in the midst of an experience."""
        values = {f"within/experience_{j + 1}": a for j, a in event["accuracy"].items()}
        self.log(STEP, event["before"]["steps"] + event["done"], values)

    def _on_decided(self, event: Event) -> None:
        self._rows.decide(event)

    def _on_diagnosed(self, event: Event) -> None:
        values = {
            f"strategy/{name}": Bars(value) if isinstance(value, list) else value
            for name, value in event["values"].items()
        }
        self.log(EXPERIENCE, event["step"], values)

    def _on_remembered(self, event: Event) -> None:
        counts = {"memory/by_class": Bars(event["by_class"])}
        self.log(EXPERIENCE, event["step"], {"memory/samples": sum(event["by_class"]), **counts})

    def _on_evaluated(self, event: Event) -> None:
        self._log_rest_of_losses()
        self._rows.add(event)
        self._log_rows()

    def _log_rest_of_losses(self) -> None:
        for step, values in self._losses.rest():
            self.log(STEP, step, values)

    def _log_rows(self) -> None:
        for k in self._rows.ready():
            if values := self._row(k):
                self.log(EXPERIENCE, k, values)

    def _row(self, k: int) -> dict[str, Value]:
        values: dict[str, Value] = {**self._rows.values(k)}
        if not k:
            return values
        if (counts := self._rows.confusion(k, self.out)) is not None:
            values["confusion"] = Confusion(counts)
        if self._n <= MOST_TABLES:
            matrix = self._rows.matrix()
            values[f"matrix/{self._rows.own}"] = as_table(matrix)
            if k < self._n and time.monotonic() - self._drawn > PICTURE_SECONDS:
                self._drawn = time.monotonic()
                values["matrix/heat_map"] = Picture(matrix_figure(matrix, self._title))
        return values

    def _on_end(self, event: Event) -> None:
        result = Result.from_json(event["result"])
        self._log_rest_of_losses()
        self._rows.complete(result)
        self._log_rows()
        costs = {f"cost/{name}": value for name, value in result.cost.items()}
        self.conclude({**result.metrics, **costs})
        matrices = [(m, result.matrices[m]) for m in MASKS if m in result.matrices]
        values: dict[str, Value] = {f"matrix/{mask}": as_table(m) for mask, m in matrices}
        values["matrix/heat_map"] = Picture(result.plot_matrix())
        values["matrix/curves"] = forgetting_curves(result.matrix)
        self.log(EXPERIENCE, len(result.matrix.visits), values)
        self._end(failed=False)

    def _on_failed(self, event: Event) -> None:
        self.conclude({"error": event["error"]})
        self._end(failed=True)


def as_table(matrix: AccuracyMatrix) -> Table:
    """Return a matrix with its rows' numbers in front; row 0 is before training."""
    columns = ["after", *(f"{j}: {name}" for j, name in enumerate(matrix.names, 1))]
    rows = zip(matrix.rows, matrix.tolist(), strict=True)
    return Table(columns, [[k, *row] for k, row in rows])


def forgetting_curves(matrix: AccuracyMatrix) -> Lines:
    """Return the accuracy on each experience from when it is learned, by what was learned since."""
    rows, visits = list(matrix.rows), list(matrix.visits)
    curves = {
        f"{j + 1}: {name}": [
            float(matrix.values[i, j]) if j in visits[:k] else None for i, k in enumerate(rows)
        ]
        for j, name in enumerate(matrix.names)
        if j in visits
    }
    return Lines("accuracy on each experience", "experiences learned", [*map(float, rows)], curves)
