"""Lanes: runs that differ in their seed, trained side by side.

Split-MNIST with experience replay, an MLP of two layers of 100, 64+64, one epoch: 1, 8 and 32 seeds
side by side in one process, against the same runs one after the other. "Products alone" are the
matrix products of the steps and the evaluations of all lanes, on stacked weights, and nothing else:
no data, loss, activation or optimizer; whatever is trained side by side takes longer. CPU time, one
thread. On a GPU, where small networks should gain most, nothing was measured unless the table says
so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch

from benchmarks import ours
from benchmarks.measure import Effort, Goal, NotMeasured, Row, compared, cpu, paired
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner

STREAM = "split-mnist"
HIDDEN, BATCH = [100, 100], 64
ALONE, BESIDE = "one after the other", "side by side"
PRODUCTS = "side by side, products alone"
GOALS = {8: Goal("at most", 0.65)}


def measure(effort: Effort) -> list[Row]:
    rows, planner = [], Planner()
    for lanes in effort.pick((1, 2), (1, 8), (1, 8, 32)):
        plans = [plan(seed, effort, planner) for seed in range(lanes)]
        calls = {
            ALONE: partial(separately, plans),
            BESIDE: partial(side_by_side, plans),
            PRODUCTS: partial(products, plans),
        }
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
            "model": {"name": "mlp", "hidden": HIDDEN},
            "batch_size": BATCH,
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


@torch.inference_mode()
def products(plans: Sequence[Plan]) -> None:
    """Multiply as often as the plans do side by side."""
    stream, lanes = plans[0].stream, len(plans)
    sizes = [math.prod(stream.input_shape), *HIDDEN, stream.n_classes]
    weights = [torch.rand(lanes, out, into) for into, out in pairwise(sizes)]
    inputs = [torch.rand(lanes, 2 * BATCH, n) for n in sizes]
    steps = sum(math.ceil(len(e.train) / BATCH) for e in stream.experiences)
    for _ in range(steps):
        for i, weight in enumerate(weights):
            torch.bmm(inputs[i], weight.mT)
        for i, weight in enumerate(weights):
            torch.bmm(inputs[i + 1].mT, inputs[i])
            if i:
                torch.bmm(inputs[i + 1], weight)
    test = torch.rand(sum(len(e.test) for e in stream.experiences), sizes[0])
    for _ in range(lanes * (1 + len(stream))):
        x = test
        for weight in weights:
            x = x @ weight[0].T


def _refuse(k: int, why: str) -> None:
    if why != "there is one":
        raise NotMeasured(f"runs are not trained side by side: {why}")
