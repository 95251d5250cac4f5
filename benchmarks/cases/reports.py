"""Reading and reporting a folder of two thousand runs.

Runs of ten experiences, made of a real one with other settings and noise. Reading is
`clp.load_results`, reporting `clp report` as a process of its own, start included. Wall time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import cl_platform as clp
from benchmarks.measure import Effort, Row, paired, wall
from cl_platform.results.result import KEY
from cl_platform.storage.sealed import seal

STRATEGIES = ("finetune", "er", "der++", "ewc")
SEEDS = 5
REPORT = "from cl_platform.cli.app import main; main()"


def measure(effort: Effort) -> list[Row]:
    runs = effort.pick(40, 100, 2000)
    with TemporaryDirectory() as place:
        fill(Path(place), runs)
        assert len(clp.load_results(Path(place))) == runs  # else an empty page is measured
        command = [sys.executable, "-c", REPORT, "report", place]
        report = partial(subprocess.run, command, check=True, capture_output=True)
        calls = {"clp.load_results": partial(clp.load_results, Path(place)), "clp report": report}
        ways = {name: partial(wall, call) for name, call in calls.items()}
        rounds = effort.pick(1, 1, effort.rounds)
        found = paired(ways, rounds, warm_up=False)
        size = (Path(place) / "report.html").stat().st_size / 1e6
    rows = [Row(f"{runs} runs", name, values=v, unit=" s") for name, v in found.items()]
    return [*rows, Row(f"{runs} runs", "size of the page", values=[size], unit=" MB")]


def fill(folder: Path, runs: int) -> None:
    """Fill a folder with so many runs."""
    stream = {"name": "blobs", "experiences": 10, "classes_per_experience": 2}
    model = clp.run(stream, "er", out=None).to_json()
    rng = np.random.default_rng(0)
    for i in range(runs):
        seed, rest = i % SEEDS, i // SEEDS
        strategy, place = STRATEGIES[rest % len(STRATEGIES)], rest // len(STRATEGIES)
        order = np.random.default_rng(place).permutation(10).tolist()
        data = json.loads(json.dumps(model))
        data["run_id"] = f"{i:012x}"
        data["config"] |= {
            "seed": seed,
            "strategy": {"name": strategy},
            "curriculum": {"name": "explicit", "level": "experiences", "order": order},
        }
        data["order"] = order
        for name, value in data["metrics"].items():
            data["metrics"][name] = value and value + float(rng.normal(0, 0.02))
        path = folder / "runs" / data["run_id"] / "result.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(seal(KEY, data))
