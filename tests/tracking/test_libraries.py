"""MLflow, TensorBoard and trackio, each as itself: what they hold is the schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cl_platform as clp
from cl_platform.results.result import Result
from cl_platform.tracking.schema import find

RUN = {
    "stream": {"name": "blobs", "experiences": 2, "samples_per_class": 10},
    "strategy": {"name": "er", "memory_size": 5},
    "batch_size": 3,
}
STEPS = [5, 7, 10, 14]  # every five, and the end of each experience


def tracked(out: Path, *sinks: object) -> Result:
    return clp.run(**RUN, out=out, sinks=[*sinks])  # type: ignore[arg-type]


def unknown(names: set[str]) -> set[str]:
    """Names that the schema has neither in the history nor, after a prefix, in the summary."""
    return {
        n
        for n in names
        if not find("history", n) and not find("summary", n.removeprefix("summary/"))
    }


def test_mlflow_holds_the_schema(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    section = {"name": "mlflow", "log_every": 5}
    result = tracked(tmp_path, section)
    assert (
        tracked(tmp_path, section).run_id == result.run_id
    )  # of a run that had ended: the same run on MLflow
    client = MlflowClient((tmp_path / "mlflow").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "cl-platform"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (
        "blobs/er/as_given experiences=2 samples_per_class=10 memory_size=5 batch_size=3 s0",
        "FINISHED",
    )
    assert run.data.tags["config.strategy.memory_size"] == "5"
    assert unknown(set(run.data.metrics)) == set()
    assert run.data.metrics["average_accuracy"] == result.metrics["average_accuracy"]
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in losses] == STEPS
    found = {a.path for a in client.list_artifacts(run.info.run_id, "matrix")}
    assert found >= {"matrix/seen.json", "matrix/heat_map.png", "matrix/curves.png"}


def test_tensorboard_holds_the_schema(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = tracked(tmp_path, {"name": "tensorboard", "log_every": 5})
    events = EventAccumulator(str(tmp_path / "tensorboard" / result.run_id))
    events.Reload()
    tags = events.Tags()
    assert unknown({*tags["scalars"], *tags["images"], *tags["histograms"]}) == set()
    assert [point.step for point in events.Scalars("train/loss")] == STEPS
    (accuracy,) = events.Scalars("summary/average_accuracy")
    assert accuracy.value == pytest.approx(result.metrics["average_accuracy"])
    assert {"matrix/heat_map", "matrix/seen", "matrix/curves"} <= {*tags["images"]}
    *_, memory = events.Histograms("memory/by_class")
    assert memory.histogram_value.num == 5


def test_trackio_holds_the_schema(tmp_path: Path) -> None:
    """In a process of its own: its folder is chosen at its import."""
    program = f"""
import json
import cl_platform as clp
result = clp.run(**{RUN!r}, out="out", sinks=[{{"name": "trackio", "log_every": 5}}])
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage
(run,) = Api().runs("cl-platform")
logs = SQLiteStorage.get_logs("cl-platform", run.name)
accuracy = result.metrics["average_accuracy"]
print("FOUND", json.dumps([run.name, run.config, logs, accuracy], default=str))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    name, config, logs, accuracy = json.loads(done.stdout.partition("FOUND ")[2])
    assert name.startswith(
        "blobs/er/as_given experiences=2 samples_per_class=10 memory_size=5 batch_size=3 s0"
    )
    assert config["strategy"]["memory_size"] == 5
    logged = {n for row in logs for n in row} - {"timestamp", "step"}
    assert unknown(logged) == set()
    assert {"matrix/seen", "matrix/heat_map", "memory/by_class", "so_far/forgetting"} <= logged
    assert [row["train/step"] for row in logs if "train/loss" in row] == STEPS
    assert [r["summary/average_accuracy"] for r in logs if "summary/average_accuracy" in r] == [
        accuracy
    ]
