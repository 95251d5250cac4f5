"""Tracking on Weights & Biases. The names logged are listed in ``docs/wandb.md``."""

from __future__ import annotations

import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_platform.files import is_remote, location
from cl_platform.matrix import MASKS, OWN_MASK
from cl_platform.result import Result
from cl_platform.tracking import Background, Event

PROBE_SECONDS = 3.0
INIT_SECONDS = 10.0
PATIENCE = 30.0  # for what is still to be uploaded when a run has ended


def background_sink(mode: Literal["offline", "online"], out: str | Path) -> Background:
    """A W&B sink served by its own thread: the run never waits for it."""
    return Background(lambda: WandbSink(mode, out), patience=PATIENCE)


class WandbSink:
    """Logs one dictionary per experience, a throttled loss curve, and the matrices at the end.

    Without a network or an API key an online run is kept offline, with one line that says so.
    """

    def __init__(self, mode: Literal["offline", "online"], out: str | Path) -> None:
        # W&B's reports of its own errors hold up the end of the process when the server is silent.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.mode = mode if mode == "offline" else reachable_mode()
        self.out = out
        self._run: Any = None
        self._start: Event = {}
        self._steps_before = 0
        self._last_total = 0

    def emit(self, event: Event) -> None:
        getattr(self, f"_on_{event['event']}")(event)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _on_start(self, event: Event) -> None:
        self._start = event
        config = event["config"]
        names = {k: config[k]["name"] for k in ("stream", "strategy", "curriculum", "model")}
        self._run = start_run(
            self.mode,
            self.out,
            group=os.environ.get("WANDB_RUN_GROUP", f"{names['stream']}/{names['strategy']}"),
            tags=[*names.values(), event["scenario"]],
            name=f"{names['strategy']}-{names['curriculum']}-s{config['seed']}",
            id=event["run_id"],
            config={**config, "order": event["order"], "scenario": event["scenario"]},
        )
        self._run.define_metric("experience", hidden=True)
        self._run.define_metric("accuracy/*", step_metric="experience")
        self._run.define_metric("train/step", hidden=True)
        self._run.define_metric("train/*", step_metric="train/step")

    def _on_progress(self, event: Event) -> None:
        self._last_total = event["total"]
        step = self._steps_before + event["done"]
        self._run.log({"train/step": step, "train/loss": event["loss"]})

    def _on_evaluated(self, event: Event) -> None:
        self._steps_before += self._last_total
        self._last_total = 0
        learned = self._start["experiences"][: event["step"]]
        logged: dict[str, Any] = {"experience": event["step"]}
        for mask, accuracies in event["rows"]["test"].items():
            values = [accuracies[e["identity"]] for e in learned]
            if values:
                logged[f"accuracy/{mask}/average"] = sum(values) / len(values)
            for j, value in enumerate(values, 1):
                logged[f"accuracy/{mask}/experience_{j}"] = value
        self._run.log(logged)

    def _on_end(self, event: Event) -> None:
        import wandb

        result = Result.from_json(event["result"])
        for name, value in result.metrics.items():
            self._run.summary[name] = value
        for name, value in result.cost.items():
            self._run.summary[f"cost/{name}"] = value
        logged: dict[str, Any] = {"experience": len(result.matrix)}
        for mask in [m for m in MASKS if m in result.matrices]:
            matrix = result.matrices[mask]
            columns: list[str | int] = [
                "after",
                *(f"{j}: {name}" for j, name in enumerate(matrix.names, 1)),
            ]
            rows: list[Any] = [[i, *row] for i, row in enumerate(matrix.tolist())]
            logged[f"matrix/{mask}"] = wandb.Table(columns=columns, data=list(rows))
        logged["matrix/heat_map"] = wandb.Image(as_image(heat_map(result)))
        self._run.log(logged)

    def _on_failed(self, event: Event) -> None:
        self._run.summary["error"] = event["error"]
        self._run.finish(exit_code=1)
        self._run = None


def start_run(mode: str, out: str | Path, **fields: Any) -> Any:
    """A W&B run that goes on if it was there before, and gives up soon when nothing answers."""
    import wandb

    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "cl-platform"),
        resume="allow",
        reinit="finish_previous",
        dir=local_folder(out),
        mode=mode,  # type: ignore[arg-type]
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
    """Where W&B is to keep its files, made if need be; None where it does by itself.

    It writes to local disks only, so that an address is no place for them.
    """
    folder = location(out)
    if is_remote(folder):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def log_sweep(
    mode: str,
    out: str | Path,
    group: str,
    columns: list[str],
    rows: Sequence[Iterable[Any]],
    figures: Mapping[str, Any],
) -> None:
    """The summary of a sweep as one more run of its group: a table and (matplotlib) figures."""
    import wandb

    run = start_run(mode, out, group=group, job_type="summary", name=group, id=f"{group}-summary")
    pictures = {f"sweep/{name}": wandb.Image(as_image(f)) for name, f in figures.items()}
    run.log({"sweep/results": wandb.Table(columns=list(columns), data=list(rows)), **pictures})
    run.finish()


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


def reachable_mode() -> Literal["offline", "online"]:
    """``online`` if the server answers and takes our key; else says in one line why not."""
    import wandb

    reason = ""
    if not _answers(wandb.setup().settings.base_url):  # first: a login waits long for the dead
        reason = "the server cannot be reached"
    else:
        try:
            if not wandb.login(prompt=False):
                reason = "no API key; run `wandb login`"
        except Exception as error:
            reason = " ".join(str(error).split())
    if not reason:
        return "online"
    print(f"W&B: {reason}. Tracking offline; upload later with `wandb sync`.", file=sys.stderr)
    return "offline"


def _answers(address: str) -> bool:
    """Whether a server says anything within a few seconds; looking up its name has no timeout."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an error page is an answer
        except OSError:
            return
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(PROBE_SECONDS)
