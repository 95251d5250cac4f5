"""Tracking on Weights & Biases, by the names of :mod:`cl_platform.tracking.wandb.schema`."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_platform.core.matrix import MASKS, OWN_MASK, Accuracies, AccuracyMatrix, chances
from cl_platform.core.predictions import unpacked
from cl_platform.errors import one_line
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.metrics.prediction_metrics import confusion
from cl_platform.results.result import Result
from cl_platform.storage.files import is_remote, location
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Background, Event
from cl_platform.tracking.wandb.login import default_project, quieten, reachable_mode
from cl_platform.tracking.wandb.pictures import as_image
from cl_platform.tracking.wandb.schema import axes

Mode = Literal["offline", "online"]

INIT_SECONDS = 10.0
DATA_DIR = os.environ.get("WANDB_DATA_DIR")  # as the user has set it; W&B's own is in the home
MOST_CLASSES = 100  # of a confusion matrix
MOST_OF_TAG, MOST_BARS = 64, 512  # what W&B takes: characters of a tag, bars of a histogram
PATIENCE = 30.0  # for what is still to be uploaded when a run has ended


_refused = threading.Event()  # the server did not take a run of this process


def background_sink(mode: Mode, out: str | Path, decided: bool = False) -> Background:
    """Return a W&B sink served by its own thread: the run never waits for it.

    Args:
        decided: whether it is known that a server takes runs; see :func:`decided_mode`.
    """
    out = location(out).absolute()  # a strategy may change directory
    return Background(lambda: WandbSink(mode, out, decided), patience=PATIENCE)


class WandbSink:
    """Logs one dictionary per experience, a throttled loss curve, and the matrices at the end.

    Where no server takes it, an online run is kept offline, with one line that says so.
    """

    def __init__(self, mode: Mode, out: str | Path, decided: bool = False) -> None:
        quieten()
        self.mode = mode if mode == "offline" or decided else reachable_mode()
        self.out = out
        self._run: Any = None
        self._start: Event = {}
        self._rows: dict[int, Accuracies] = {}  # by the number of experiences learned
        self._predictions: dict[int, str | None] = {}  # where they are, likewise
        self._probes: dict[int, dict[str, float]] = {}  # by identity, likewise
        self._visits: list[int] = []  # unless one experience follows the other
        self._measured: dict[int, dict[str, float | None]] = {}  # besides rows, likewise
        self._logged: list[int] = []  # of the rows
        self._steps_before = 0
        self._last_total = 0

    def emit(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:  # a later version may emit more
            handler(event)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _on_start(self, event: Event) -> None:
        self._start = event
        self._visits = [column for column, _ in event["visits"]]
        config = event["config"]
        names = {k: config[k]["name"] for k in ("stream", "strategy", "curriculum", "model")}
        self._run = start_run(
            self.mode,
            self.out,
            group=os.environ.get("WANDB_RUN_GROUP", f"{names['stream']}/{names['strategy']}"),
            tags=[_short(tag, MOST_OF_TAG) for tag in (*names.values(), event["scenario"])],
            name=f"{names['strategy']}-{names['curriculum']}-s{config['seed']}",
            id=event["run_id"],
            config={**config, "order": event["order"], "scenario": event["scenario"]},
        )
        for axis in set(axes().values()):
            self._run.define_metric(axis, hidden=True)
        for name, axis in axes().items():
            self._run.define_metric(name, step_metric=axis)

    def _on_progress(self, event: Event) -> None:
        self._last_total = event["total"]
        step = self._steps_before + event["done"]
        self._run.log({"train/step": step, "train/loss": event["loss"]})

    def _on_evaluated(self, event: Event) -> None:
        self._steps_before += self._last_total
        self._last_total = 0
        self._rows[event["step"]] = event["rows"]["test"]
        self._measured[event["step"]] = event.get("measured", {})
        self._predictions[event["step"]] = event.get("predictions")
        self._probes[event["step"]] = event.get("probes", {})
        self._log_rows()

    def _on_decided(self, event: Event) -> None:
        self._visits.append(event["experience"])

    def _on_diagnosed(self, event: Event) -> None:
        import wandb

        logged: dict[str, Any] = {"experience": event["step"]}
        for name, value in event["values"].items():
            if isinstance(value, list):
                value = wandb.Histogram(np_histogram=bars(value))
            logged[f"strategy/{name}"] = value
        self._run.log(logged)

    def _log_rows(self) -> None:
        """Log the rows that are there, up to the first that is not."""
        while (k := self._next()) in self._rows:
            self._logged.append(k)
            logged = {**(self._row(k) if k else {}), **self._held_out(k)}
            if logged:
                self._run.log({"experience": k, **logged})

    def _next(self) -> int:
        """Return the row to be logged next, by the number of experiences learned."""
        rows, n = self._start.get("rows"), len(self._logged)
        if rows is None:
            return n
        return int(rows[n]) if n < len(rows) else -1

    def _row(self, k: int) -> dict[str, Any]:
        """Return what is logged after k experiences."""
        experiences, visits = self._start["experiences"], self._visits[:k]
        learned = sum(not e.get("held_out") for e in experiences)
        columns = range(learned if visits else k)  # of those that come again, all
        ids = [experiences[j]["identity"] for j in columns]
        names = [experiences[j]["name"] for j in columns]
        logged: dict[str, Any] = {}
        if self._start.get("teacher"):
            logged["teacher/experience"] = visits[-1] + 1
        for mask, accuracies in self._rows[k].items():
            values = {j: accuracies[ids[j]] for j in sorted({*visits}) or columns}
            logged[f"accuracy/{mask}/average"] = sum(values.values()) / len(values)
            for j, value in values.items():
                logged[f"accuracy/{mask}/experience_{j + 1}"] = value
        measured = self._measured.get(k, {}).items()
        logged |= {f"plasticity/{n}": value for n, value in measured if value is not None}
        own = OWN_MASK[self._start["scenario"]]
        rows = [self._rows[i][own] for i in self._logged]
        classes = [e["classes"] for e in experiences]
        chance = chances(own, classes[: len(columns)], 1 + max(map(max, classes)))
        so_far = AccuracyMatrix.from_rows(
            rows, ids, names, visits or columns, rows=self._logged, chances=chance
        )
        metrics = compute_metrics(so_far)
        logged |= {f"so_far/{n}": v for n, v in metrics.items() if not math.isnan(v)}
        address = self._predictions.get(k)
        return logged | ({} if address is None else self._confusion(address))

    def _confusion(self, address: str) -> dict[str, Any]:
        """Return the confusion matrix of a row whose predictions are at an address, if any."""
        import wandb

        labels = self._start.get("labels", ())
        if not 0 < len(labels) <= MOST_CLASSES:
            return {}
        packed = StateStore(location(self.out) / "states").predicted(address)
        if packed is None:
            return {}
        ids = [e["identity"] for e in self._start["experiences"]]
        counts = confusion(unpacked(packed, ids, labels))
        columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
        data: list[Any] = [[str(y), str(p), int(n)] for (y, p), n in np.ndenumerate(counts)]
        drawn = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=wandb.Table(columns=columns, data=data),
            fields={str(name): str(name) for name in columns},
            string_fields={"title": "classes taken for others"},
        )
        return {"confusion": drawn}

    def _held_out(self, k: int) -> dict[str, Any]:
        """Return what is logged of columns held out, and of probes, before training as well."""
        place = {e["identity"]: j for j, e in enumerate(self._start["experiences"], 1)}
        held = [e["identity"] for e in self._start["experiences"] if e.get("held_out")]
        found = {
            f"held_out/{mask}": {identity: accuracies[identity] for identity in held}
            for mask, accuracies in self._rows[k].items()
        }
        logged: dict[str, Any] = {}
        for name, row in {**found, "probe": self._probes.get(k, {})}.items():
            if row:
                logged[f"{name}/average"] = sum(row.values()) / len(row)
                logged |= {f"{name}/column_{place[i]}": value for i, value in row.items()}
        return logged

    def _on_end(self, event: Event) -> None:
        result = Result.from_json(event["result"])
        self._visits = [experience for experience, _ in result.visits]
        # What nothing was evaluated for: the run had ended before, or one state stands for all.
        for i, k in enumerate(result.matrix.rows):
            if k not in self._logged:
                self._predictions[k] = result.kept[i] if result.kept else None
                self._rows[k] = {
                    mask: dict(zip(matrix.experience_ids, matrix.values[i].tolist(), strict=True))
                    for mask, matrix in result.matrices.items()
                }
                self._measured[k] = {name: values[i] for name, values in result.plasticity.items()}
                if result.probes is not None:
                    row = zip(result.probes.experience_ids, result.probes.tolist()[i], strict=True)
                    self._probes[k] = {name: v for name, v in row if not math.isnan(v)}
        self._log_rows()
        for name, value in result.metrics.items():
            self._run.summary[name] = value
        for name, value in result.cost.items():
            self._run.summary[f"cost/{name}"] = value
        self._log_matrices(result)

    def _log_matrices(self, result: Result) -> None:
        import wandb

        logged: dict[str, Any] = {"experience": len(result.matrix.visits)}
        for mask in [m for m in MASKS if m in result.matrices]:
            matrix = result.matrices[mask]
            names = [f"{j}: {name}" for j, name in enumerate(matrix.names, 1)]
            columns: list[str | int] = ["after", *names]
            rows: list[Any] = [[k, *r] for k, r in zip(matrix.rows, matrix.tolist(), strict=True)]
            logged[f"matrix/{mask}"] = wandb.Table(columns=columns, data=rows)
        logged["matrix/heat_map"] = wandb.Image(as_image(result.plot_matrix()))
        self._run.log(logged)

    def _on_failed(self, event: Event) -> None:
        self._run.summary["error"] = event["error"]
        self._run.finish(exit_code=1)
        self._run = None


def bars(values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return a histogram with a bar for each value, from 0: heights (n,) and edges (n + 1,).

    Where W&B takes fewer, a bar is the sum of several values in a row.
    """
    width = -(-len(values) // MOST_BARS)
    edges = np.append(np.arange(0, len(values), width), len(values))
    return np.add.reduceat(np.asarray(values), edges[:-1]), edges


def _short(text: str, most: int) -> str:
    """Return a text of at most `most` characters; the end of a name says more than its path."""
    return text if len(text) <= most else f"...{text[3 - most :]}"


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
    pictures = {f"sweep/{name}": wandb.Image(as_image(f)) for name, f in figures.items()}
    run.log({"sweep/results": wandb.Table(columns=list(columns), data=list(rows)), **pictures})
    run.finish()
