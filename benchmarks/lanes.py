"""Runs trained side by side, relative to the same runs one by one.

Split-MNIST, experience replay with 500 samples, seeds 0, 1, ... of a small MLP. In each round both
ways carry out the same runs, evaluation included, in turn and in alternating order; the figure is
the median of the rounds' ratios of CPU time, with one thread. Both end with the same bits, which is
checked.

    python -m benchmarks.lanes --lanes 1 8 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import Way, run_lanes
from cl_platform.engine.planner import Planner
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BASE: dict[str, Any] = {
    "stream": "split-mnist",
    "strategy": {"name": "er", "memory_size": 500},
    "model": {"name": "mlp", "hidden": [100, 100]},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "batch_size": 64,
}


def measure(
    counts: Sequence[int] = (1, 8, 32), rounds: int = 3, experiences: int = 1, **settings: Any
) -> dict[int, dict[str, Any]]:
    """Return, for each number of lanes, the ratios of CPU time to separate runs, and why some took
    steps of their own.

    Args:
        counts: numbers of lanes.
        experiences: of each run, the first ones.
        settings: of the runs, in place of those above.
    """
    planner = Planner()
    found: dict[int, dict[str, Any]] = {}
    for n in counts:
        configs = [parse_config({**BASE, **settings, "seed": seed}) for seed in range(n)]
        plans = [planner(config) for config in configs]
        reasons: list[str] = []
        ratios, seconds = [], []

        def report(k: int, why: str, reasons: list[str] = reasons) -> None:
            reasons.append(why)

        for turn in range(rounds):
            took = {}
            for beside in (True, False) if turn % 2 else (False, True):
                folds = [Fold(plan, StateStore(None), Trackers()) for plan in plans]
                start = time.process_time()
                if beside:
                    run_lanes(folds, [experiences] * n, Way(), report)
                else:
                    for fold in folds:
                        fold.run(experiences)
                took[beside] = time.process_time() - start, folds
            ratios.append(took[True][0] / took[False][0])
            seconds.append(took[False][0])
            for one, other in zip(took[True][1], took[False][1], strict=True):
                assert one.records[experiences].rows == other.records[experiences].rows
        found[n] = {
            "ratio": statistics.median(ratios),
            "range": (min(ratios), max(ratios)),
            "separate_seconds": statistics.median(seconds),
            "apart": sorted(set(reasons)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experiences", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.lanes, given.rounds, given.experiences, batch_size=given.batch_size)
    for n, row in found.items():
        low, high = row["range"]
        print(f"{n:3d} lanes: {row['ratio']:.2f} ({low:.2f} to {high:.2f}) of separate runs")
        for why in row["apart"]:
            print(f"          {why}")


if __name__ == "__main__":
    main()
