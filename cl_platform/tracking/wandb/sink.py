"""Tracking on Weights & Biases, by the names of :mod:`cl_platform.tracking.schema`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_platform.config.tracking import Wandb
from cl_platform.errors import one_line
from cl_platform.storage.files import is_remote, location
from cl_platform.tracking.about import About
from cl_platform.tracking.pictures import as_image
from cl_platform.tracking.schema import axes, axis_of, goals
from cl_platform.tracking.schema_sink import SchemaSink
from cl_platform.tracking.sinks import Background, Event
from cl_platform.tracking.values import Bars, Confusion, Lines, Table, Value
from cl_platform.tracking.wandb.artifacts import Artifacts
from cl_platform.tracking.wandb.login import default_project, quieten, reachable_mode

Mode = Literal["offline", "online"]

INIT_SECONDS = 10.0
DATA_DIR = os.environ.get("WANDB_DATA_DIR")  # as the user has set it; W&B's own is in the home
ORDER, ACCURACY = "curriculum", "average_accuracy mean"  # columns of a sweep's table
PATIENCE = 30.0  # for what is still to be uploaded when a run has ended


_refused = threading.Event()  # the server did not take a run of this process


def background_sink(
    options: Wandb, out: str | Path, decided: bool = False, sweep: str = ""
) -> Background:
    """Return a W&B sink served by its own thread: the run never waits for it.

    Args:
        options: of the mode ``offline`` or ``online``.
        decided: whether it is known that a server takes runs; see :func:`decided_mode`.
        sweep: name of the sweep that its runs belong to.
    """
    out = location(out).absolute()  # a strategy may change directory
    assert options.mode != "off"
    mode: Mode = options.mode
    made = partial(WandbSink, mode, out, options, decided, sweep)
    return Background(made, patience=PATIENCE, name="W&B")


class WandbSink(SchemaSink):
    """Sends what is logged to W&B, or keeps it in files for ``wandb sync``.

    Where no server takes it, an online run is kept offline, with one line that says so.

    Args:
        out: folder of the records.
        options: what is logged, and how often.
        decided: whether it is known that a server takes runs; see :func:`decided_mode`.
        sweep: name of the sweep that its runs belong to.
    """

    library = "wandb"

    def __init__(
        self,
        mode: Mode,
        out: str | Path,
        options: Wandb | None = None,
        decided: bool = False,
        sweep: str = "",
    ) -> None:
        self.options = options or Wandb()
        super().__init__(out, self.options.log_every, sweep)
        quieten()
        self.mode = mode if mode == "offline" or decided else reachable_mode()
        self._run: Any = None
        self._artifacts: Artifacts | None = None

    def begin(self, about: About) -> None:
        given = {name: os.environ.get(f"WANDB_{name.upper()}") for name in ("run_group", "name")}
        self._run = start_run(
            self.mode,
            self.out,
            group=given["run_group"] or about.group,
            job_type=os.environ.get("WANDB_JOB_TYPE") or "run",
            tags=list(about.tags),
            name=given["name"] or about.name,
            notes=os.environ.get("WANDB_NOTES"),
            id=os.environ.get("WANDB_RUN_ID") or about.run_id,  # an agent has given it one
            config=about.config,
        )
        define_metrics(self._run)
        self._artifacts = Artifacts(self._run, location(self.out), self.options, about)
        self._artifacts.log_code()

    def log(self, axis: str, at: int, values: Mapping[str, Value]) -> None:
        self._run.log({axis: at, **{name: as_wandb(value) for name, value in values.items()}})

    def conclude(self, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            self._run.summary[name] = value

    def end(self, failed: bool) -> None:
        if self._artifacts is not None:
            self._artifacts.log_last()
        self._run.finish(exit_code=1 if failed else 0)

    def _on_saved(self, event: Event) -> None:
        if self._artifacts is not None:
            self._artifacts.take(event)


def define_metrics(run: Any) -> None:
    """Tell W&B what names are drawn against, and which direction of them is better."""
    for axis in set(axes().values()):
        run.define_metric(axis, hidden=True)
    for name, axis in axes().items():
        run.define_metric(name, step_metric=axis)
    for name, direction in goals().items():
        best = "max" if direction == "more" else "min"  # a `goal` is not taken any more
        run.define_metric(name, summary=f"{best},last", step_metric=axis_of(name))


def as_wandb(value: Value) -> Any:
    """Return a value as W&B takes it."""
    if isinstance(value, int | float):
        return value
    import wandb

    if isinstance(value, Bars):
        return wandb.Histogram(np_histogram=value.histogram())
    if isinstance(value, Table):
        return wandb.Table(columns=list(value.columns), data=list(value.rows))
    if isinstance(value, Lines):
        return _line_series(value)
    if isinstance(value, Confusion):
        return _confusion(value.counts)
    return wandb.Image(as_image(value.figure))


def _confusion(counts: np.ndarray) -> Any:
    """Return W&B's own chart of a confusion matrix."""
    import wandb

    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    data: list[Any] = [[str(y), str(p), int(n)] for (y, p), n in np.ndenumerate(counts)]
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=wandb.Table(columns=columns, data=data),
        fields={str(name): str(name) for name in columns},
        string_fields={"title": "classes taken for others"},
    )


def _line_series(lines: Lines) -> Any:
    """Return a chart of W&B's own, whose points are where a curve has a value."""
    import wandb

    points = {
        name: [(x, y) for x, y in zip(lines.at, ys, strict=True) if y is not None]
        for name, ys in lines.curves.items()
    }
    return wandb.plot.line_series(
        [[x for x, _ in each] for each in points.values()],
        [[y for _, y in each] for each in points.values()],
        list(points),
        title=lines.title,
        xname=lines.axis,
    )


def decided_mode(out: str | Path, group: str) -> Mode:
    """Return ``online`` if a server takes the summary of a sweep, which is begun here; else print
    why not in one line. One wait decides for all runs of the sweep."""
    if reachable_mode() == "online":
        try:
            _init("online", out, **_summary(group)).finish()
            return "online"
        except Exception as error:
            _say_refused(error)
    return "offline"


def _say_refused(error: Exception) -> None:
    _refused.set()
    print(
        f"W&B: the server takes no runs ({one_line(error, 200).rstrip('.')}). Tracking offline; "
        "upload later with `wandb sync`.",
        file=sys.stderr,
    )


def start_run(mode: Mode, out: str | Path, **fields: Any) -> Any:
    """Start or resume a W&B run.

    Where a server does not take an online run within seconds, it and those that follow it in this
    process are kept offline, with one line.
    """
    if mode == "online" and not _refused.is_set():
        try:
            return _init("online", out, **fields)
        except Exception as error:
            _say_refused(error)
    return _init("offline", out, **fields)


def _init(mode: Mode, out: str | Path, **fields: Any) -> Any:
    import wandb

    folder = local_folder(out)
    if folder is not None and DATA_DIR is None:  # where tables and pictures wait to be sent
        os.environ["WANDB_DATA_DIR"] = os.path.join(folder, "wandb")
    return wandb.init(
        project=default_project(),
        resume="allow",
        reinit="finish_previous",
        dir=folder,
        mode=mode,
        settings=wandb.Settings(
            init_timeout=INIT_SECONDS,
            finish_timeout=PATIENCE,
            finish_timeout_raises=False,
            console="off",
            silent=True,
        ),
        **fields,
    )


def local_folder(out: str | Path) -> str | None:
    """Return the folder for W&B's files, made if need be; None for W&B's own default.

    It writes to local disks only, so that an address is no place for them.
    """
    folder = location(out)
    if is_remote(folder):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _bar_per_point(columns: list[str], rows: list[list[Any]]) -> Any:
    """Return a chart of W&B's own with the mean accuracy of each point, the best first."""
    import wandb

    value = columns.index(ACCURACY)
    axes_of_points = columns[: columns.index("runs")]
    points = [[" ".join(map(str, row[: len(axes_of_points)])), row[value]] for row in rows]
    points.sort(key=lambda point: -point[1])
    table = wandb.Table(columns=["point", ACCURACY], data=list(points))
    return wandb.plot.bar(table, "point", ACCURACY, title="mean accuracy by point")


def _summary(group: str) -> dict[str, str]:
    return {"group": group, "job_type": "summary", "name": group, "id": f"{group}-summary"}


def log_sweep(
    mode: Mode,
    out: str | Path,
    group: str,
    columns: list[str],
    rows: Sequence[Iterable[Any]],
    figures: Mapping[str, Any],
) -> None:
    """Log a sweep's summary as one more run of its group: a table and (matplotlib) figures."""
    import wandb

    run = start_run(mode, out, **_summary(group))
    shown = {f"sweep/{name}": wandb.Image(as_image(f)) for name, f in figures.items()}
    cells = [list(row) for row in rows]
    if {ORDER, ACCURACY} <= {*columns} and len({row[columns.index(ORDER)] for row in cells}) > 1:
        shown["sweep/orders"] = _bar_per_point(columns, cells)
    run.log({"sweep/results": wandb.Table(columns=list(columns), data=list(cells)), **shown})
    run.finish()
