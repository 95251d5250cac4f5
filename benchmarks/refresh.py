"""Does refresh learning help DER++? Paired differences over seeds, on three small streams.

Prints a table and, with --write, puts it into docs/refresh_results.md. The settings are the same
for all: those of DER++ with its defaults; none was tuned. Results are kept under --out, so that an
interrupted table goes on where it was.

    python benchmarks/refresh.py --write --jobs 2
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from document import write_table
from scipy import stats

SEEDS = 5

STREAMS: dict[str, dict[str, Any]] = {
    "Split-MNIST": {"stream": "split-mnist", "batch_size": 32},
    "Split-Fashion-MNIST": {"stream": "split-fashion-mnist", "batch_size": 32},
    "Split-CIFAR-10, subset": {
        "stream": {"name": "split-cifar10", "samples": 500},
        "model": {"name": "cnn", "width": 16},
        "batch_size": 32,
        "epochs": 5,
    },
}
LEARNER = {"name": "der++", "memory_size": 500}
COMMON = {"optimizer": {"lr": 0.03}}
UPDATES: dict[str, dict[str, Any]] = {
    "paper": {"mode": "paper"},
    "paper, no noise": {"mode": "paper", "noise": 0.0},
    "code": {"mode": "code"},
}
STRENGTHS = (1e-5, 1e-3, 1e-2)


def variants() -> dict[tuple[str, float], dict[str, Any]]:
    """The strategies compared, by update and strength; without refresh first."""
    found: dict[tuple[str, float], dict[str, Any]] = {("none", 0.0): LEARNER}
    for (name, update), gamma in product(UPDATES.items(), STRENGTHS):
        found[name, gamma] = {"name": "refresh", "inner": LEARNER, "gamma": gamma, **update}
    return found


def accuracy(stream: str, strategy: dict[str, Any], seed: int, out: Path) -> float:
    """Final average accuracy of one run, or nan if it diverged."""
    from cl_platform.config.run_config import parse_config
    from cl_platform.engine.execution import execute
    from cl_platform.engine.planner import make_plan
    from cl_platform.errors import RunFailed

    config = parse_config({**COMMON, **STREAMS[stream], "strategy": strategy, "seed": seed})
    try:
        return execute(make_plan(config), out, keep="last").metrics["average_accuracy"]
    except RunFailed:
        return float("nan")


def half_interval(differences: list[float]) -> float:
    """Half the width of the 95 % interval of the mean (Student's t)."""
    n = len(differences)
    return float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5


def row(stream: str, name: str, gamma: float, values: list[float], plain: list[float]) -> str:
    """One line of the table."""
    start = f"| {stream} | {name} | {gamma:g} | "
    if any(v != v for v in values):
        return start + f"diverged in {sum(v != v for v in values)} of {len(values)} | | |"
    mean = f"{statistics.fmean(values):.4f} (sd {statistics.stdev(values):.4f})"
    if name == "none":
        return start + f"{mean} | | |"
    differences = [v - p for v, p in zip(values, plain, strict=True)]
    half = half_interval(differences)
    low, high = statistics.fmean(differences) - half, statistics.fmean(differences) + half
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "no difference shown"
    return (
        start
        + f"{mean} | {statistics.fmean(differences):+.4f} [{low:+.4f}, {high:+.4f}] | {verdict} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clp-results"))
    parser.add_argument("--write", action="store_true", help="update docs/refresh_results.md")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    lines = [
        "| stream | update | gamma | accuracy | difference to none [95 %] | so refresh |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        pending = {
            (stream, *key): [
                pool.submit(accuracy, stream, strategy, seed, arguments.out)
                for seed in range(SEEDS)
            ]
            for stream, (key, strategy) in product(STREAMS, variants().items())
        }
        for (stream, name, gamma), runs in pending.items():
            values = [run.result() for run in runs]
            plain = [run.result() for run in pending[stream, "none", 0.0]]
            lines.append(row(stream, name, gamma, values, plain))
            print(lines[-1], flush=True)
    if arguments.write:
        write_table("table", "refresh_results.md", lines)


if __name__ == "__main__":
    main()
