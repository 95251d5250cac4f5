"""The W&B sink: what runs send, online or synced later, and what a dead network costs."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cl_platform.cli.app import call
from cl_platform.config.run_config import parse_config
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import RunFailed
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.metrics.registry import metrics
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking import schema
from cl_platform.tracking.schema import (
    GROUP_BY,
    SCHEMA,
    Where,
    axes,
    better,
    find,
)
from cl_platform.tracking.sinks import Background, Event, Trackers
from cl_platform.tracking.wandb import sink as wandb_sink
from cl_platform.tracking.wandb.sink import WandbSink
from tests.conftest import ROOT, one_result
from tests.helpers.processes import CopiedClp, start_clp
from tests.helpers.wandb_server import KEY, ReceivedRun, WandbServer

DATA = ROOT / "tests" / "data"
# A small memory: there is something to forget.
RUN = [
    *("run", "--stream", "blobs", "--strategy", "er", "--set", "strategy.memory_size=5"),
    *("--curriculum", "reverse", "--seed", "3", "--plasticity", "--gradient-norm"),
    *("--evaluate-every", "15"),
]
POINT = "blobs/er/reverse memory_size=5 evaluate_every=15"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """That of this process, with nothing of W&B but what is given."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return env | {"HOME": str(folder), "WANDB_DIR": str(folder), "COLUMNS": "80", **more}


def to(server: WandbServer) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}


def start_run(folder: Path, *more: str, **variables: str) -> CopiedClp:
    arguments = [*RUN, "--out", str(folder / "out"), *more]
    return CopiedClp(arguments, folder, env=environment(folder, **variables))


def run(folder: Path, *more: str, **variables: str) -> tuple[str, dict]:
    """A run in a process of its own: (stderr, result)."""
    process = start_run(folder, *more, **variables)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return err, one_result(folder / "out")


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


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.close()


@dataclass
class Sent:
    """A run that was followed by a server, and the result it wrote itself."""

    result: dict
    run: ReceivedRun


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The result of the run that W&B knows nothing of, made in this process."""
    out = tmp_path_factory.mktemp("untracked")
    assert call([*RUN, "--out", str(out)]) == 0
    return one_result(out)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """An online run as the server has it."""
    folder, server = tmp_path_factory.mktemp("online"), WandbServer()
    artifacts = ["--wandb.log_model", "all", "--wandb.log_code", "true"]
    err, result = run(folder, "--wandb", "online", *artifacts, **to(server))
    assert err == ""
    (received,) = server.runs.values()
    yield Sent(result, received)
    server.close()


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, made offline."""
    folder = tmp_path_factory.mktemp("offline")
    err, _ = run(folder, "--wandb", "offline")
    assert err == ""
    return folder


class Recorder:
    """A run of W&B's that only listens."""

    def __init__(self) -> None:
        self.logged: list[dict] = []
        self.summary: dict[str, float] = {}

    def define_metric(self, name: str, **options: object) -> None: ...

    def log(self, row: dict) -> None:
        self.logged.append(row)

    def finish(self, exit_code: int = 0) -> None: ...

    def curve(self) -> list[dict]:
        """The numbers logged after each experience."""
        rows = [row for row in self.logged if "so_far/average_accuracy" in row]
        return [{n: v for n, v in row.items() if isinstance(v, int | float)} for row in rows]


def recorded(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: Any) -> Recorder:
    """What W&B is told of a run in this process, whether it ends well or not."""
    recorder = Recorder()
    monkeypatch.setattr(wandb_sink, "start_run", lambda *_, **__: recorder)
    plan = make_plan(parse_config(settings))
    with suppress(RunFailed):
        execute(plan, None, sinks=[WandbSink("offline", folder)])
    return recorder


@dataclass
class Swept:
    """The folder of a sweep, and the records of its runs and of its summary."""

    folder: Path
    records: list[dict[str, list[dict]]]

    @property
    def names(self) -> set[str]:
        """What the summary logged."""
        (records,) = [r for r in self.records if r["run"][0].get("job_type") == "summary"]
        return {
            name.partition(".")[0]  # the reader takes tables and pictures apart
            for logged in records["history"]
            for name in logged["item"]
            if not name.startswith("_")
        }

    @property
    def config(self) -> set[str]:
        """What the runs are described by."""
        return {
            n for r in self.records for run in r["run"] for n in run["config"].get("update", {})
        }


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep of two runs, tracked offline."""
    folder = tmp_path_factory.mktemp("swept")
    spec = {
        "base": {"stream": {"name": "blobs", "experiences": 3}},
        "axes": {"strategy": ["er"], "curriculum": ["as_given", "reverse"]},
    }
    (folder / "small.yaml").write_text(json.dumps(spec))
    process = start_clp(
        ["sweep", "small.yaml", "--workers", "1", "--wandb", "offline"],
        folder,
        env=environment(folder),
    )
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, out + err
    return Swept(folder, [read_back(path.parent) for path in folder.rglob("run-*.wandb")])


def experiences(run: ReceivedRun) -> list[dict]:
    """What was logged per experience; when heat maps are drawn depends on the clock."""
    return [logged for logged in run.history if "experience" in logged]


def test_what_is_sent_is_the_schema(
    online: Sent, swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name is of the schema, and every row of the schema has a name."""
    failed = recorded(monkeypatch, tmp_path, stream="blobs", optimizer={"lr": 1e30})
    # A strategy that tells of itself, led by a teacher.
    prompted = {"strategy": "l2p", "model": "tiny-transformer"}
    prompted |= {"curriculum": {"name": "teacher:fixed", "share": 1}}
    held_out = {"name": "rotated-digits", "experiences": 2, "held_out": [1]}
    probed = {"stream": held_out, "strategy": "finetune", "probe": {"shots": 1}}
    logged: dict[Where, set[str]] = {
        "config": {*online.run.config, *swept.config},
        "history": {name for logged in online.run.history for name in logged},
        "sweep": swept.names,
    }
    for settings in ({"stream": "blobs", **prompted}, probed):
        rows = recorded(monkeypatch, tmp_path, **settings).logged
        logged["history"] |= {name for row in rows for name in row}
    assert "error" in failed.summary
    last = {*online.run.summary, *failed.summary}
    logged["summary"] = {n for n in last - logged["history"] if not n.startswith("_")}
    found = {where: {n: find(where, n) for n in names} for where, names in logged.items()}
    assert [n for rows in found.values() for n, row in rows.items() if row is None] == []
    assert {row for rows in found.values() for row in rows.values()} == set(SCHEMA)


def test_a_run_is_called_by_what_tells_it_from_others(online: Sent) -> None:
    about = online.run.about
    assert about["groupName"] == online.run.config["point"] == POINT
    assert (about["displayName"], about["jobType"]) == (f"{POINT} s3", "run")
    assert {"blobs", "er", "reverse", "mlp", "class", "memory_size=5"} <= set(about["tags"])


def test_states_are_a_chain_of_artifacts(online: Sent) -> None:
    sent = [a for a in online.run.artifacts if a["artifactTypeName"] == "model"]
    states = [json.loads(a["metadata"]) for a in sent]
    assert [state["experience"] for state in states] == [1, 2, 3, 4, 5]
    assert [s["made_from"] for s in states[1:]] == [s["key"] for s in states[:-1]]
    assert len({state["key"] for state in states}) == 5
    assert len([a for a in online.run.artifacts if a["artifactTypeName"] == "code"]) == 1


def test_a_resumed_run_is_the_same_run_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was stopped after two experiences: steps are counted from the beginning."""
    recorder = Recorder()
    monkeypatch.setattr(wandb_sink, "start_run", lambda *_, **__: recorder)
    plan = make_plan(parse_config({"stream": {"name": "blobs", "samples_per_class": 10}}))
    advance(plan, StateStore(tmp_path / "states"), 2)
    execute(plan, tmp_path, sinks=[WandbSink("offline", tmp_path)])
    assert [row["experience"] for row in recorder.curve()] == [1, 2, 3, 4, 5]
    steps = [row["train/step"] for row in recorder.logged if "train/loss" in row]
    per = plan.config.batch_size and len(plan.stream[0].train) // plan.config.batch_size
    assert steps[-1] == 5 * per
    assert min(steps) > 2 * per
    assert {n for row in recorder.logged for n in row if find("history", n) is None} == set()


def test_better_is_what_the_registry_says(online: Sent) -> None:
    summary = online.run.summary
    found = {name: set(summary[name]) - {"last"} for name in ("train/loss", "so_far/forgetting")}
    assert found == {"train/loss": {"min"}, "so_far/forgetting": {"min"}}
    assert set(summary["so_far/average_accuracy"]) == {"max", "last"}


def test_the_loss_has_a_point_every_ten_steps(online: Sent) -> None:
    points = [logged for logged in online.run.history if "train/loss" in logged]
    assert [p["train/step"] for p in points] == [*range(10, 101, 10)]
    assert [p["train/samples"] for p in points] == [*range(100, 1001, 100)]
    assert {p["train/learning_rate"] for p in points} == {
        online.result["config"]["optimizer"]["lr"]
    }
    assert all(p["train/gradient_norm"] > 0 for p in points)
    within = [logged for logged in online.run.history if "within/experience_1" in logged]
    assert [p["train/step"] for p in within] == [15, 35, 55, 75, 95]


def test_the_documentation_lists_the_schema() -> None:
    """After a change of the schema, paste what `table()` gives."""
    text = (ROOT / "docs" / "wandb.md").read_text()
    assert schema.table() in text
    sentence = text.partition("Which is better *by metric*")[2].partition(", more for")[0]
    less = {
        m.name for m in metrics().values() if m.direction == "less" and m.computed_from != "cost"
    }
    assert set(re.findall(r"`([\w.]+)`", sentence)) == less
    assert better("summary", "cost/steps") == "less"


def test_what_is_called_better_is_better() -> None:
    keeps = np.tri(4, 3, -1) + np.triu(np.full((4, 3), 0.5)) * (np.arange(4) > 0)[:, None]
    forgets = 0.8 * np.eye(4, 3, -1)
    given = {"held_out": (3,), "chances": (0.1,) * 4, "sizes": (10,) * 4}
    matrices = (np.c_[keeps, np.full(4, 0.5)], np.c_[forgets, np.full(4, 0.1)])
    good, bad = (compute_metrics(AccuracyMatrix(values, **given)) for values in matrices)
    for name in good:
        assert good[name] != bad[name]
        assert better("summary", name) == ("more" if good[name] > bad[name] else "less")


def test_everything_the_dashboard_shows_is_sent(online: Sent, swept: Swept) -> None:
    sent = set(online.run.summary) | swept.names
    text = (DATA / "dashboard.json").read_text()
    shown = set(re.findall(r'"summary:([^"]+)"', text))
    for section in json.loads(text)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            shown |= {n for key in ("metrics", "mediaKeys") for n in panel["config"].get(key, [])}
    assert {"so_far/forgetting", "matrix/heat_map", "cost/train_seconds"} <= shown
    assert shown - sent == set()


def test_an_offline_run_holds_everything(offline: Path) -> None:
    records, result = read_back(offline), one_result(offline / "out")
    (started,) = records["run"]
    assert started["config"]["update"]["order"] == [4, 3, 2, 1, 0]
    assert started["config"]["update"]["strategy"]["memory_size"] == 5
    assert started["config"]["update"]["scenario"] == "class"
    assert started["run_id"] == result["run_id"]
    assert started["run_group"] == POINT

    steps = {m.get("glob_name") or m.get("name"): m.get("step_metric") for m in records["metric"]}
    assert steps["accuracy/*"] == "experience"
    assert steps["train/loss"] == "train/step"

    logged = [h["item"] for h in records["history"]]
    curve = [h["accuracy/seen/average"] for h in logged if "accuracy/seen/average" in h]
    matrix = result["matrix"]["seen"]
    assert curve == [sum(row[:i]) / i for i, row in enumerate(matrix) if i]
    assert [h["experience"] for h in logged if "accuracy/seen/experience_1" in h] == [1, 2, 3, 4, 5]
    losses = [h for h in logged if "train/loss" in h]
    assert [h["train/step"] for h in losses] == [*range(10, 101, 10)]

    summary = {k: v for s in records["summary"] for k, v in s["update"].items()}
    for name, value in result["metrics"].items():
        assert summary[name] == value
    assert summary["cost/steps"] == result["cost"]["steps"]

    tables = [json.loads(t.read_text()) for t in offline.rglob("media/table/matrix/seen*.json")]
    content = max(tables, key=lambda table: len(table["data"]))
    assert [row[1:] for row in content["data"]] == matrix
    assert content["columns"][:2] == ["after", "1: blob 8 blob 9"]
    *_, picture = sorted(offline.rglob("heat_map*.png"))
    with Image.open(picture) as image:
        assert image.size[0] > 400


def test_the_server_has_the_run(online: Sent) -> None:
    run, result = online.run, online.result
    assert run.config["order"] == result["order"]
    assert [run.config[key] for key in GROUP_BY] == [POINT]
    assert axes().items() <= run.axes.items()
    assert {n: run.summary[n] for n in result["metrics"]} == result["metrics"]
    (table,) = [f for n, f in run.files.items() if n.startswith("media/table/matrix/task")]
    assert [row[1:] for row in json.loads(table)["data"]] == result["matrix"]["task"]


def test_curves_are_the_metrics_of_the_experiences_so_far(online: Sent) -> None:
    matrix = np.array(online.result["matrix"]["seen"])
    rows = [logged for logged in experiences(online.run) if "so_far/average_accuracy" in logged]
    assert [row["experience"] for row in rows] == [1, 2, 3, 4, 5]
    for k, row in enumerate(rows, 1):
        so_far = compute_metrics(AccuracyMatrix(matrix[: k + 1, :k], chances=(1 / (2 * k),) * k))
        sent = {name: row.get(f"so_far/{name}", math.nan) for name in so_far}
        assert sent == pytest.approx(so_far, abs=1e-12, nan_ok=True)
    assert rows[-1]["so_far/forgetting"] > 0.1  # else nothing was seen of it
    assert rows[-1]["so_far/forgetting"] == online.result["metrics"]["forgetting"]


def test_a_run_synced_later_looks_the_same(
    online: Sent, offline: Path, server: WandbServer
) -> None:
    (folder,) = offline.rglob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    env = environment(offline, **to(server))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (synced,) = server.runs.values()
    assert experiences(synced) == experiences(online.run)
    assert (synced.about, synced.config, synced.axes) == (
        online.run.about,
        online.run.config,
        online.run.axes,
    )
    measured = {"train/loss", *(f"cost/{n}" for n in online.result["cost"])} - {"cost/steps"}
    assert synced.summary.keys() == online.run.summary.keys()
    for name in synced.summary.keys() - measured:
        assert synced.summary[name] == online.run.summary[name]
    assert {n for n in synced.files if n.startswith("media/")} == {
        n for n in online.run.files if n.startswith("media/")
    }


@pytest.mark.parametrize("strategy", ["er", "joint"])
def test_a_run_that_had_ended_before_has_the_same_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Nothing is evaluated then; and in joint training one state stands for all rows."""
    curves = []
    for _ in range(2):
        recorder = Recorder()
        monkeypatch.setattr(wandb_sink, "start_run", lambda *_, r=recorder, **__: r)
        plan = make_plan(parse_config({"stream": "blobs", "strategy": strategy}))
        execute(plan, tmp_path, sinks=[WandbSink("offline", tmp_path)])
        curves.append(recorder.curve())
    assert [row["experience"] for row in curves[0]] == [1, 2, 3, 4, 5]
    assert curves[0] == curves[1]


def test_an_unknown_event_does_not_end_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(wandb_sink, "start_run", lambda *_, **__: recorder)
    trackers = Trackers([WandbSink("offline", tmp_path)])
    trackers.emit("postponed", step=1)
    assert len(trackers.sinks) == 1
    execute(make_plan(parse_config({"stream": "blobs"})), None, sinks=trackers.sinks)
    assert len(recorder.curve()) == 5
    assert capsys.readouterr().err == ""


def test_a_metric_of_ones_own_is_sent_with_its_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_metric: str
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(wandb_sink, "start_run", lambda *_, **__: recorder)
    plan = make_plan(parse_config({"stream": "blobs", "seed": 4}))
    result = execute(plan, tmp_path, sinks=[WandbSink("offline", tmp_path)])
    last = recorder.curve()[-1]
    assert (
        last[f"so_far/{own_metric}"] == result.metrics[own_metric] == recorder.summary[own_metric]
    )
    assert better("history", f"so_far/{own_metric}") == "more"
    assert better("summary", f"task/{own_metric}") == "more"
    assert better("summary", "of_another_program") == ""  # not registered: no direction


@pytest.mark.parametrize(
    ("answers", "key", "reason"),
    [
        (False, "x" * 40, "the server cannot be reached"),
        (True, "", "no API key; run `wandb login`"),
    ],
)
def test_online_without_a_network_or_key_goes_offline_with_one_line(
    tmp_path: Path,
    untracked: dict,
    server: WandbServer,
    answers: bool,
    key: str,
    reason: str,
) -> None:
    variables = {"WANDB_BASE_URL": server.url if answers else "http://127.0.0.1:9"}
    variables |= {"WANDB_API_KEY": key} if key else {}
    err, result = run(tmp_path, "--wandb", "online", **variables)
    assert err.splitlines() == [f"W&B: {reason}. Tracking offline; upload later with `wandb sync`."]
    assert result["matrix"] == untracked["matrix"]
    assert list(tmp_path.rglob("run-*.wandb"))


class Slow:
    """A sink that receives its first event only when the test lets it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.may_begin = threading.Event()
        self.closed = False

    def emit(self, event: Event) -> None:
        self.may_begin.wait()
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


def test_a_slow_sink_receives_every_event_and_is_waited_for() -> None:
    slow = Slow()
    sink = Background(lambda: slow)
    sent: list[Event] = [{"event": "progress", "step": i} for i in range(5)]
    for event in sent:
        sink.emit(event)
    assert not slow.events
    slow.may_begin.set()
    sink.close()
    assert (slow.events, slow.closed) == (sent, True)


def test_a_sink_that_hangs_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    hanging = Slow()
    sink = Background(lambda: hanging, patience=0.1)
    sink.emit({"event": "start"})
    Trackers([sink]).close()
    assert "not done after 0.1 s; the run's records are complete" in capsys.readouterr().err
    hanging.may_begin.set()


def test_a_sink_that_cannot_start_costs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Slow:
        raise RuntimeError("no such thing")

    sink = Background(fail)
    for _ in range(3):
        sink.emit({"event": "start"})
    sink.close()
    assert capsys.readouterr().err == "tracking is off: no such thing\n"


def test_a_sweep_is_one_group_with_a_summary(swept: Swept) -> None:
    runs = [records["run"][0] for records in swept.records]
    started = [(run["run_group"], run.get("job_type", "")) for run in runs]
    assert sorted(started) == [
        ("small", "summary"),
        ("small: blobs/er/as_given experiences=3", "run"),
        ("small: blobs/er/reverse experiences=3", "run"),
    ]
    (table,) = swept.folder.rglob("media/table/sweep/results*.json")
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
    (picture,) = swept.folder.rglob("order_sensitivity*.png")
    with Image.open(picture) as image:
        assert image.size[0] > 400
