"""The command line as a process of its own: interrupted, on a full disk, and in the examples."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_platform.engine.contract import CHECKS
from tests.conftest import ROOT
from tests.helpers.processes import CopiedClp, wait_until

Clp = Callable[..., tuple[int, str, str]]


def test_new_writes_a_strategy_that_keeps_the_contract(clp: Clp, tmp_path: Path) -> None:
    code, out, _ = clp("new", "WeightedReplay")
    assert code == 0
    assert "clp check weighted_replay.py:WeightedReplay" in out
    code, out, _ = clp("check", "weighted_replay.py:WeightedReplay", "--json")
    assert code == 0
    assert all(verdict["ok"] for verdict in json.loads(out).values())
    code, _, err = clp("new", "WeightedReplay")
    assert code == 2
    assert "exists" in err
    code, out, _ = clp("run", "--strategy", "weighted_replay:WeightedReplay", "--stream", "blobs",
                       "--set", "strategy.beta=1", "--json")  # fmt: skip
    assert json.loads(out)["config"]["strategy"]["beta"] == 1
    test = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_weighted_replay.py",
    ]
    done = subprocess.run(test, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{len(CHECKS)} passed" in done.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_keeps_its_states(tmp_path: Path, sent: int, code: int) -> None:
    arguments = ["run", "--epochs", "100", "--strategy", "finetune"]
    process = CopiedClp(arguments, tmp_path)
    wait_until(lambda: list(tmp_path.glob("clp-results/states/*/*.pt")), process)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    word = "interrupted" if sent == signal.SIGINT else "terminated"
    assert err.startswith(f"{word}; the experiences finished so far are kept. Go on with: clp")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("**/.*"))


def small_files() -> None:
    """Files may grow to 300 kB: the first records can be written, the first state (760 kB) cannot."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_full_disk_loses_nothing(clp: Clp, tmp_path: Path) -> None:
    process = CopiedClp(["run", "--json"], tmp_path, first=small_files)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert json.loads(out)["error"][0] in err
    assert "cannot write" in err
    assert len(err.splitlines()) == 1
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {f.suffix for f in files} <= {".json", ".jsonl", ".predictions"}
    assert not [f for f in files if f.name.startswith(".")]
    code, out, _ = clp("run", "--json")
    assert code == 0
    assert json.loads(out)["metrics"]


def test_the_examples_run(clp: Clp, tmp_path: Path) -> None:
    examples = ROOT / "examples"
    code, out, _ = clp("run", "--config", str(examples / "run.yaml"), "--json")
    assert code == 0
    assert json.loads(out)["config"]["optimizer"]["reset"] is False
    done = subprocess.run(
        [sys.executable, str(examples / "mine.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "beta 0.0",
        "beta 0.5",
        "beta 1.0",
    ]
