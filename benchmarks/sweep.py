"""The cost of a sweep beyond its training, and the time that sharing saves.

    python -m benchmarks.sweep overhead     # 200 runs of a strategy that does nothing
    python -m benchmarks.sweep plan         # 2040 runs planned
    python -m benchmarks.sweep sharing      # 120 orders with and without sharing, interleaved

Sharing is measured on digits and, with $CLP_DATA, on MNIST: the time from the first worker's
start to the end, alternating without and with sharing, and the median of the ratios. Of the
training 325/600 = 0.54 remain, of the evaluations 326/720.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from torch import Tensor

from cl_platform import Batch, Strategy
from cl_platform.engine.planner import Planner
from sweeps.api import sweep
from sweeps.executor.driver import Driver
from sweeps.executor.tree import states
from sweeps.planning import plan_runs
from sweeps.spec import parse_spec


class Idle(Strategy):
    """A strategy that learns nothing, in no time."""

    def training_step(self, batch: Batch) -> Tensor:
        return batch.x.new_zeros(())


class Clock:
    """Seconds of work, from the first worker's start to the end, and the driver's memory."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.memory: list[float] = []

    def of(self, driver: Driver) -> Any:
        def tick(phase: Any) -> None:
            pool = driver.pool
            if pool is not None and pool.started():
                self.marks.append(time.perf_counter())
                self.memory.append(_resident())

        return tick

    @property
    def seconds(self) -> float:
        return self.marks[-1] - self.marks[0]


def _resident() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def timed(spec: dict[str, Any]) -> Clock:
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        found = sweep(spec, out, watch=clock.of)
        assert found.complete
        assert not found.failed
    return clock


def overhead(rounds: int) -> None:
    spec = {
        "base": {
            "stream": {"name": "blobs", "samples_per_class": 20},
            "model": {"name": "mlp", "hidden": [16]},
        },
        "axes": {"strategy": ["benchmarks.sweep:Idle"], "seed": {"range": 200}},
    }
    for _ in range(rounds):
        clock = timed(spec)
        quarter = len(clock.memory) // 4
        grown = statistics.fmean(clock.memory[-quarter:]) - statistics.fmean(clock.memory[:quarter])
        print(
            f"200 idle runs of 5 experiences: {1000 * clock.seconds / 200:.1f} ms a run; "
            f"driver grew by {grown:.1f} MiB"
        )


def plan(rounds: int) -> None:
    spec = parse_spec(
        {
            "axes": {
                "strategy": ["er"],
                "curriculum": ["all"],
                "seed": {"range": 17},
            }
        }
    )
    for _ in range(rounds):
        began = time.perf_counter()
        runs = plan_runs(spec, Planner())
        seconds = time.perf_counter() - began
        print(f"{len(runs)} runs ({len(states(runs))} distinct states) planned in {seconds:.2f} s")


def sharing(rounds: int) -> None:
    bases: list[dict[str, Any]] = [{"stream": "split-digits"}]
    if os.environ.get("CLP_DATA"):
        bases.append({"stream": "split-mnist", "batch_size": 64})
    for base in bases:
        ratios = []
        for _ in range(rounds):
            seconds = {
                share: timed(
                    {
                        "base": base,
                        "axes": {"strategy": ["er"], "curriculum": ["all"]},
                        "share": share,
                    }
                ).seconds
                for share in (False, True)
            }
            ratios.append(seconds[True] / seconds[False])
            without, shared = seconds[False], seconds[True]
            line = f"{without:.1f} s without, {shared:.1f} s with sharing: {ratios[-1]:.2f}"
            print(f"{base['stream']}: {line}", flush=True)
        print(f"{base['stream']}: median {statistics.median(ratios):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["overhead", "plan", "sharing"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what != "plan":
        ray.init(
            address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False
        )
    {"overhead": overhead, "plan": plan, "sharing": sharing}[arguments.what](arguments.rounds)


if __name__ == "__main__":
    main()
