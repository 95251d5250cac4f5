"""A run that is killed at any moment and started again ends as one that was not."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import one_result
from tests.helpers.processes import CopiedClp

Clp = Callable[..., tuple[int, str, str]]

JOB = ["run", "--stream", "split-digits", "--strategy", "er", "--epochs", "12", "--json"]
JOB += ["--set", "optimizer.name=adam", "--set", "optimizer.reset=false", "--lr", "0.001"]
TAUGHT = [*JOB, "--curriculum", "teacher:sec", "--set", "stream.validation=0.2"]


def kill_until_done(job: list[str], folder: Path, kills: int, rng: random.Random) -> int:
    """Start the job, kill it at a random moment of its work, start it again; how often killed."""
    killed = 0
    while killed < kills:
        process = CopiedClp(job, folder)
        started = _wait_for_work(folder, process)
        if started:
            time.sleep(rng.random() * 0.6)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        elif process.returncode == 0:  # done too early: take the result away and go on
            _forget_the_end(folder, rng)
        process.communicate()
        if rng.random() < 0.3:
            _forget_the_end(folder, rng)
    process = CopiedClp(job, folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return killed


def _wait_for_work(folder: Path, process: CopiedClp) -> bool:
    """Until this process has begun its run (its start event is written)."""
    before = sum(log.read_text().count('"start"') for log in folder.rglob("events.jsonl"))
    while process.poll() is None:
        now = sum(log.read_text().count('"start"') for log in folder.rglob("events.jsonl"))
        if now > before:
            return True
        time.sleep(0.01)
    return False


def _forget_the_end(folder: Path, rng: random.Random) -> None:
    """Remove the result and all but a few states, so that there is work to be killed in."""
    for result in folder.rglob("result.json"):
        result.unlink()
    states = sorted(folder.rglob("*.pt"), key=lambda p: p.stat().st_mtime)
    for state in states[rng.randrange(4) :]:
        state.unlink()
        state.with_suffix(".json").unlink(missing_ok=True)


def check(clp: Clp, folder: Path, kills: int, seed: int, job: list[str] = JOB) -> None:
    code, undisturbed, err = clp(*job)
    assert code == 0, err
    folder.mkdir()
    assert kill_until_done(job, folder, kills, random.Random(seed)) == kills
    expected, found = json.loads(undisturbed), one_result(folder / "clp-results")
    assert found["matrix"] == expected["matrix"]
    assert found["metrics"] == expected["metrics"]
    assert found.get("visits") == expected.get("visits")
    assert found["run_id"] == expected["run_id"]
    assert found["cost"]["steps"] == expected["cost"]["steps"]


def test_killed_three_times(clp: Clp, tmp_path: Path) -> None:
    check(clp, tmp_path / "disturbed", kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("job", [JOB, TAUGHT], ids=["in order", "taught"])
def test_killed_a_dozen_times(job: list[str], clp: Clp, tmp_path: Path) -> None:
    check(clp, tmp_path / "disturbed", kills=12, seed=1, job=job)
