"""Reading and reporting two thousand runs: seconds, and the size of the page.

python benchmarks/report.py --runs 2000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import cl_platform as clp

STRATEGIES = ("finetune", "er", "der++", "ewc")
SEEDS = 5
REPORT = "from cl_platform.cli.app import main; main()"


def fill(folder: Path, runs: int) -> None:
    """A folder with so many runs: a real one of ten experiences, with other settings and noise."""
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
        path.write_text(json.dumps(data))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def shown(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fill(folder, given.runs)
        command = [sys.executable, "-c", REPORT, "report", place]
        load, report = [], []
        for _ in range(given.rounds):
            load.append(seconds(lambda: clp.load_results(folder)))
            report.append(seconds(lambda: subprocess.run(command, check=True, capture_output=True)))
        size = (folder / "report.html").stat().st_size
    print(f"{given.runs} runs, {given.rounds} rounds")
    print(f"clp.load_results: {shown(load)}")
    print(f"clp report, as a process: {shown(report)}; {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
