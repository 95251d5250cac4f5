"""Lanes: runs that differ in their seed, trained side by side.

Split-MNIST with experience replay, an MLP of two layers of 100, 64+64, one epoch: 1, 8 and 32 seeds
side by side in one process, against the same runs one after the other. CPU time, one thread. On a
GPU, where small networks should gain most, nothing was measured unless the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks import ours
from benchmarks.measure import Effort, Goal, NotMeasured, Row, compared, cpu, paired
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner

STREAM = "split-mnist"
ALONE, BESIDE = "one after the other", "side by side"
GOALS = {8: Goal("at most", 0.65)}


def measure(effort: Effort) -> list[Row]:
    rows, planner = [], Planner()
    for lanes in effort.pick((1, 2), (1, 8), (1, 8, 32)):
        plans = [plan(seed, effort, planner) for seed in range(lanes)]
        calls = {ALONE: partial(separately, plans), BESIDE: partial(side_by_side, plans)}
        ways = {name: partial(cpu, call) for name, call in calls.items()}
        found = paired(ways, effort.rounds)
        goals = {BESIDE: GOALS[lanes]} if lanes in GOALS else {}
        rows += compared(f"{lanes} seeds", found, ALONE, goals)
    return rows


def plan(seed: int, effort: Effort, planner: Planner) -> Plan:
    """Return the plan of a lane."""
    samples, tests = effort.pick((40, 10), (500, 100), (None, None))
    return ours.plan(
        {
            "stream": {"name": STREAM, "samples": samples, "test_samples": tests},
            "strategy": {"name": "er", "memory_size": 500},
            "model": {"name": "mlp", "hidden": [100, 100]},
            "batch_size": 64,
            "optimizer": {"lr": 0.1},
            "seed": seed,
        },
        planner,
    )


def separately(plans: Sequence[Plan]) -> None:
    """Carry out plans one after the other."""
    for each in plans:
        ours.fold(each).run()


def side_by_side(plans: Sequence[Plan]) -> None:
    """Carry out plans that differ in their seed as lanes of one process."""
    run_lanes([*map(ours.fold, plans)], report=_refuse)


def _refuse(k: int, why: str) -> None:
    if why != "there is one":
        raise NotMeasured(f"runs are not trained side by side: {why}")
