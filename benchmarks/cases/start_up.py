"""Start-up: `clp run` on digits, in processes of their own.

`clp run --stream split-digits --strategy er --epochs 1` in an empty folder, as a person calls it,
with the threads it chooses. "torch's import" is measured inside of the same process, before
anything else of ours; torch's compiler, which the first optimizer imports, is counted with it where
the run imported it. Training and evaluation are what the result says. The busy process counts and
does nothing else. `clp --help` is the CPU time beyond that of a python that does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Effort, Goal, Row

ARGUMENTS = ["run", "--stream", "split-digits", "--strategy", "er", "--epochs", "1"]
RUN = """
import json, sys, time
start = time.perf_counter()
import torch
seconds = time.perf_counter() - start
from cl_platform.cli.app import call
code = call(sys.argv[2:])
compiler = "torch._dynamo" in sys.modules
open(sys.argv[1], "w").write(json.dumps([seconds, compiler]))
sys.exit(code)
"""
COMPILER = """
import time
import torch
start = time.perf_counter()
import torch._dynamo
print(time.perf_counter() - start)
"""
HELP = "from cl_platform.cli.app import main; main(['--help'])"


def measure(effort: Effort) -> list[Row]:
    alone, beside, slower, shown = [], [], [], []
    once()  # compiles what python compiles once
    for i in range(effort.pick(1, 1, effort.rounds)):
        if i % 2:
            beside.append(once(busy=True))
        alone.append(once())
        if not i % 2:
            beside.append(once(busy=True))
        slower.append(beside[-1]["wall"] / alone[-1]["wall"])
        shown.append(cpu_seconds(HELP) - cpu_seconds("pass"))
    limits = {"wall": 5.0, "neither torch's import nor training": 1.0}
    rows = []
    for place, runs, factor in (("alone", alone, 1), ("beside a busy process", beside, 2)):
        for name in runs[0]:
            goal = Goal("at most", factor * limits[name]) if name in limits else None
            rows.append(Row(place, name, values=[run[name] for run in runs], unit=" s", goal=goal))
    rows.append(Row("beside a busy process", "wall", "alone", slower, goal=Goal("at most", 2.0)))
    return [*rows, Row("clp --help", "CPU beyond python's", values=shown, unit=" s")]


def once(busy: bool = False) -> dict[str, float]:
    """Return the seconds of the parts of one run, by name."""
    with TemporaryDirectory() as folder, occupied() if busy else _nothing():
        noted = Path(folder, "seconds.json")
        start = time.perf_counter()
        python("-c", RUN, str(noted), *ARGUMENTS, "--out", folder)
        wall = time.perf_counter() - start
        torch, has_compiler = json.loads(noted.read_text())
        if has_compiler:
            torch += float(python("-c", COMPILER))
        (result,) = Path(folder).glob("runs/*/result.json")
        training = float(json.loads(result.read_text())["cost"]["seconds"])
    return {
        "wall": wall,
        "torch's import": torch,
        "training and evaluation": training,
        "neither torch's import nor training": wall - torch - training,
    }


def python(*arguments: str) -> str:
    """Run a python without the limits of this process on threads; return what it prints."""
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout


@contextmanager
def occupied() -> Iterator[None]:
    """Keep a core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def cpu_seconds(code: str) -> float:
    """Return the CPU time of a python that runs some code."""
    before = os.times()
    python("-c", code)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
