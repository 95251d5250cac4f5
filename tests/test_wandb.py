"""The W&B sink: what an offline run holds, and that a dead network costs seconds and one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from cl_platform.tracking import Background, Event, Trackers
from tests.conftest import one_result, start_clp

RUN = ["run", "--stream", "blobs", "--strategy", "er", "--curriculum", "reverse", "--seed", "3"]


def run(folder: Path, *more: str, **environment: str) -> tuple[float, str, dict]:
    """A run in a process of its own: (seconds, stderr, result)."""
    start = time.monotonic()
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env |= {"HOME": str(folder), "WANDB_DIR": str(folder), **environment}
    process = start_clp([*RUN, "--out", str(folder / "out"), *more], folder, env=env)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return time.monotonic() - start, err, one_result(folder / "out")


def read_back(folder: Path) -> dict[str, list[dict]]:
    """The records of the only offline run under a folder, by type, by W&B's own reader."""
    (path,) = folder.rglob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        if record["type"] in record:
            records.setdefault(record["type"], []).append(record[record["type"]])
    return records


def test_an_offline_run_holds_everything(tmp_path: Path) -> None:
    _, err, result = run(tmp_path, "--wandb", "offline")
    assert err == ""
    records = read_back(tmp_path)
    (started,) = records["run"]
    assert started["config"]["update"]["order"] == [4, 3, 2, 1, 0]
    assert started["config"]["update"]["strategy"]["memory_size"] == 200
    assert started["config"]["update"]["scenario"] == "class"
    assert started["run_id"] == result["run_id"]
    assert started["run_group"] == "blobs/er"
    assert set(started["tags"]) == {"blobs", "er", "reverse", "mlp", "class"}

    steps = {m.get("glob_name"): m.get("step_metric") for m in records["metric"]}
    assert steps["accuracy/*"] == "experience"
    assert steps["train/*"] == "train/step"

    logged = [h["item"] for h in records["history"]]
    curve = [h["accuracy/seen/average"] for h in logged if "accuracy/seen/average" in h]
    matrix = result["matrix"]["seen"]
    assert curve == [sum(row[:i]) / i for i, row in enumerate(matrix) if i]
    assert [h["experience"] for h in logged if "accuracy/seen/experience_1" in h] == [1, 2, 3, 4, 5]
    losses = [h for h in logged if "train/loss" in h]
    assert [h["train/step"] for h in losses] == [20, 40, 60, 80, 100]

    summary = {k: v for s in records["summary"] for k, v in s["update"].items()}
    for name, value in result["metrics"].items():
        assert summary[name] == value
    assert summary["cost/steps"] == result["cost"]["steps"]

    (table,) = tmp_path.rglob("media/table/matrix/seen*.json")
    content = json.loads(table.read_text())
    assert [row[1:] for row in content["data"]] == matrix
    assert content["columns"][:2] == ["after", "1: blob 8 blob 9"]
    (picture,) = tmp_path.rglob("heat_map*.png")
    with Image.open(picture) as image:
        assert image.size[0] > 400


class Polite(BaseHTTPRequestHandler):
    """Says yes to everything, and means nothing by it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def stub() -> Iterator[str]:
    """The address of a server on loopback that answers everything with nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Polite)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("answers", "key", "reason"),
    [
        (False, "x" * 40, "the server cannot be reached"),
        (True, "", "no API key; run `wandb login`"),
    ],
)
def test_online_without_a_network_or_key_goes_offline_with_one_line(
    tmp_path: Path, stub: str, answers: bool, key: str, reason: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "tracked").mkdir()
    _, _, expected = run(tmp_path / "plain")
    environment = {"WANDB_BASE_URL": stub if answers else "http://127.0.0.1:9"}
    environment |= {"WANDB_API_KEY": key} if key else {}
    _, err, result = run(tmp_path / "tracked", "--wandb", "online", **environment)
    assert err.splitlines() == [f"W&B: {reason}. Tracking offline; upload later with `wandb sync`."]
    assert result["matrix"] == expected["matrix"]
    assert list((tmp_path / "tracked").rglob("run-*.wandb"))


class Slow:
    """A sink that takes its time."""

    def __init__(self) -> None:
        time.sleep(0.2)
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        time.sleep(0.05)
        self.events.append(event)

    def close(self) -> None:
        DONE.append(len(self.events))


DONE: list[int] = []


def test_a_slow_sink_is_told_everything_and_waited_for() -> None:
    DONE.clear()
    sink = Background(Slow)
    for i in range(5):
        sink.emit({"event": "progress", "step": i})
    assert not DONE
    sink.close()
    assert DONE == [5]


def test_a_sink_that_hangs_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    class Hanging(Slow):
        def emit(self, event: Event) -> None:
            time.sleep(60)

    sink = Background(Hanging, patience=0.5)
    sink.emit({"event": "start"})
    Trackers([sink]).close()
    assert "not done after 0.5 s; the run's records are complete" in capsys.readouterr().err


def test_a_sink_that_cannot_start_costs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Slow:
        raise RuntimeError("no such thing")

    sink = Background(fail)
    for _ in range(3):
        sink.emit({"event": "start"})
    sink.close()
    assert capsys.readouterr().err == "tracking is off: no such thing\n"


def test_a_sweep_is_one_group_with_a_summary(tmp_path: Path) -> None:
    spec = {
        "base": {"stream": {"name": "blobs", "experiences": 3}},
        "axes": {"strategy": ["er"], "curriculum": ["as_given", "reverse"]},
    }
    (tmp_path / "small.yaml").write_text(json.dumps(spec))
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env |= {"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path), "COLUMNS": "80"}
    process = start_clp(["sweep", "small.yaml", "--wandb", "offline"], tmp_path, env=env)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, out + err
    files = sorted(tmp_path.rglob("run-*.wandb"))
    assert len(files) == 3  # two runs and the summary
    runs = [read_back(path.parent)["run"][0] for path in files]
    started = [(run["run_group"], run.get("job_type", "")) for run in runs]
    assert sorted(started) == [("small", "")] * 2 + [("small", "summary")]
    (table,) = tmp_path.rglob("media/table/sweep/results*.json")
    content = json.loads(table.read_text())
    assert content["columns"][:4] == [
        "strategy",
        "curriculum",
        "runs",
        "average_accuracy mean",
    ]
    assert sorted(row[:3] for row in content["data"]) == [
        ["er", "as_given", 1],
        ["er", "reverse", 1],
    ]
    (picture,) = tmp_path.rglob("order_sensitivity*.png")
    with Image.open(picture) as image:
        assert image.size[0] > 400
