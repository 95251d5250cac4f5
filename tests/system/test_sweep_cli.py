"""`clp sweep` as a process of its own on a local Ray: killed, interrupted, refused."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import psutil
import pytest
import yaml
from rich.console import Console

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.results.result import Result
from sweeps import console as show
from sweeps.planning import plan_runs
from sweeps.record import Tally
from sweeps.spec import parse_spec
from tests.conftest import ROOT
from tests.helpers.processes import start_clp, wait_until

Clp = Callable[..., tuple[int, str, str]]


def write_spec(folder: Path, **spec: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@pytest.mark.slow  # its parts are in the default suite: a killed worker, a killed run
def test_killed_and_interrupted_it_ends_as_if_undisturbed(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    log, out = tmp_path / "log", tmp_path / "clp-results" / "mine"
    noted = {
        "name": "tests.helpers.sweep_strategies:Noted",
        "log": str(log),
        "seconds": 0.05,
        "leak": True,
    }
    spec = {
        "base": {"stream": {"name": "blobs", "experiences": 4}},
        "axes": {"strategy": [noted], "curriculum": ["all"]},
    }
    write_spec(tmp_path, **spec)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def trained() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    for end in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        before, wanted = trained(), rng.randrange(1, 12)
        process = start_clp(["sweep", "mine.yaml"], tmp_path)
        wait_until(lambda n=before + wanted: trained() >= n, process)  # type: ignore[misc]
        started = psutil.Process(process.pid).children(recursive=True)
        workers = [p for p in started if re.match(r"ray::(?!\w*Agent)", p.name())]
        process.send_signal(end)
        _, err = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(end, -9), err
        if end == signal.SIGKILL:
            assert err.startswith("error: the process of the sweep was ended, by Ray or from outs")
        else:
            word = "interrupted" if end == signal.SIGINT else "terminated"
            again = "Go on with: clp sweep mine.yaml"
            assert err.strip() == f"{word}; what was trained is kept. {again}"
        assert json.loads((out / "sweep.json").read_text())["status"] == "interrupted"
        assert psutil.wait_procs(workers, timeout=60)[1] == [], "whatever threads they have"
    monkeypatch.setattr(show, "LINE_SECONDS", 1.0)
    code, printed, err = clp("sweep", "mine.yaml")
    assert code == 0, printed + err
    assert "runs 24 of 24 done" in printed
    assert [line for line in printed.splitlines()[:-1] if len(line) > 80] == []
    assert trained() <= 64 + 3 * 2 * 10  # what two workers were doing (half a second), thrice

    runs = plan_runs(parse_spec(spec), Planner())
    results = {run.run_id: Result.load(out / "runs" / run.run_id) for run in runs}
    for run in rng.sample(runs, 4):
        alone, result = execute(make_plan(run.config), None), results[run.run_id]
        assert result is not None
        assert result.metrics == alone.metrics
        assert result.matrices["seen"] == alone.matrices["seen"]
    record = json.loads((out / "sweep.json").read_text())
    assert record["status"] == "done"
    assert {run["status"] for run in record["phases"][0]["runs"]} == {"done"}
    assert len(pd.read_parquet(out / "runs.parquet")) == 24


def test_without_a_terminal_progress_is_lines_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "LINE_SECONDS", 0.0)
    tally = Tally(24, 12, kept=10, experiences=96, distinct=64, known=30, trained=10)
    driver = cast(Any, SimpleNamespace(pool=None, in_flight=lambda: 0))
    show.Progress(Console(width=80)).of(driver)(cast(Any, SimpleNamespace(tally=tally)))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("runs 12 of 24 done (10 kept); experiences 40 of 64 trained; ")
    assert len(line) <= 80


def test_a_dry_run_says_what_would_be_done_and_does_nothing(clp: Clp, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path,
        base={"stream": "blobs"},
        axes={"strategy": ["finetune", "joint"], "curriculum": ["all"], "seed": [0, 1]},
    )
    code, out, err = clp("sweep", str(spec), "--dry-run")
    assert (code, err) == (0, "")
    assert "strategy 2 x curriculum 120 x seed 2" in out
    assert "480" in out
    assert "652 to train (1440 one by one, 788 shared)" in out  # 2 * (325 + 1) of 2 * 120 * (5 + 1)
    assert "CPU 1 for each run" in out
    assert all(len(line) <= 80 for line in out.splitlines()[1:])
    assert list(tmp_path.iterdir()) == [spec]
    code, out, _ = clp("sweep", str(spec), "--dry-run", "--json")
    assert json.loads(out)["tally"]["distinct"] == 652


def test_faults_are_told_together_before_anything_starts(clp: Clp, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path,
        axes={"strategy": ["er", "e-r"], "learning_rate": [1], "lr": {"loguniform": [0, 1]}},
        recources={"cpus": 1},
    )
    code, out, err = clp("sweep", str(spec))
    assert (code, out) == (2, "")
    assert "error: recources is unknown. Did you mean 'resources'?" in err
    spec = write_spec(tmp_path, axes={"strategy": ["er", "e-r"], "learning_rate": [1]})
    assert "axes: 'learning_rate' is no setting of a run" in clp("sweep", str(spec))[2]
    spec = write_spec(tmp_path, axes={"strategy": ["er", "e-r"], "epochs": [1, 0]})
    code, _, err = clp("sweep", str(spec))
    assert code == 2
    assert "unknown strategy 'e-r'. Did you mean 'er'?" in err
    assert "epochs=0" in err
    spec = write_spec(tmp_path, axes={"seed": [0, 1, 0]})
    code, _, err = clp("sweep", str(spec))
    assert (code, err) == (
        2,
        "error: the axes give this run more than once: seed=0; drop the repeated value\n",
    )
    assert list(tmp_path.iterdir()) == [spec]


def test_an_address_where_nothing_listens_is_refused_at_once(clp: Clp, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={"stream": "blobs"}, axes={"seed": [0]})
    code, _, err = clp("sweep", str(spec), "--address", "127.0.0.1:9")
    assert code == 2
    assert err.startswith("error: no Ray at address '127.0.0.1:9': Connection refused; start one")
    code, _, err = clp("sweep", str(spec), "--address", "nonsense")
    assert code == 2
    assert "no Ray at address 'nonsense'" in err
    assert len(err.splitlines()) == 1
