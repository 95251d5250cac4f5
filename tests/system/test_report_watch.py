"""`clp report --watch` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cl_platform.engine.execution import execute
from sweeps.record import Phase, write_sweep
from tests.helpers.processes import start_clp, wait_until
from tests.helpers.sweep_runs import PLANNER, planned, spec
from tests.report.test_leaderboard import page_data


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts watching the folder of the test; ended with it."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(start_clp(["report", str(tmp_path), "--watch", *words], tmp_path))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()


def test_watching_follows_a_sweep_to_its_end(
    tmp_path: Path, watching: Callable[..., subprocess.Popen[str]]
) -> None:
    runs = planned({"seed": [0, 1, 2]})
    path = tmp_path / "report.html"

    def learn(number: int) -> None:
        execute(PLANNER(runs[number].config, runs[number].order), tmp_path, keep="none")

    write_sweep(tmp_path, spec(), [Phase("runs", runs)], "running")
    learn(0)
    process = watching("--every", "0.2")
    wait_until(path.exists, process)
    first = page_data(path)
    assert (first["reload"], len(first["runs"])) == (0.2, 1)
    learn(1)
    wait_until(lambda: len(page_data(path)["runs"]) == 2, process)
    assert process.poll() is None
    learn(2)
    write_sweep(tmp_path, spec(), [Phase("runs", runs)], "done")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[0] == str(path)
    assert out.splitlines()[-1] == "3 of 3 runs"
    last = page_data(path)
    assert (last["reload"], len(last["runs"])) == (0, 3)


def test_ctrl_c_ends_watching_with_one_line(
    tmp_path: Path, watching: Callable[..., subprocess.Popen[str]]
) -> None:
    write_sweep(tmp_path, spec(), [Phase("runs", planned())], "running")
    process = watching()
    wait_until((tmp_path / "report.html").exists, process)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert line.startswith("interrupted; ")
    assert "--watch" in line
