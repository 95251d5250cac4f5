"""Split-MNIST with experience replay, the whole run.

Class-incremental, 5 experiences of two digits, one epoch, SGD with rate 0.1, a memory of 500, an
MLP; all test images are classified after each experience. "10+10" are 10 new and 10 stored samples
a step. Ours is a run in memory, with its evaluation before training and all its masks. Not counted
on either side: reading the data, planning, building the benchmark. All loops by hand have inputs
that were normalised beforehand; that of the first line, which stands for 1, fills a memory with the
same number of samples of each class at the end of each experience, and steps with torch's SGD.
"Forward and backward alone" does the same passes, without memory and steps, and the evaluations.
Avalanche's `Replay` has its own loop, with its data loaders in the same process and its accuracy of
each experience as the only metric: on its `SplitMNIST`, as it is given to users, and on tensors
normalised beforehand. CPU time, one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, compared, cpu, paired, ratios
from benchmarks.rivals import avalanche_loop
from benchmarks.rivals.by_hand import (
    ForeachStepper,
    FusedStepper,
    GradientsByHand,
    Problem,
    Reservoir,
    limit,
    loop,
)
from cl_platform.core.stream import Stream
from cl_platform.engine.plan import Plan

STREAM, MEMORY, LR = "split-mnist", 500, 0.1
COLUMNS: list[tuple[list[int], int, float, float]] = [  # goals of ours, and of Avalanche's
    ([400, 400], 10, 0.95, 2.8),
    ([100, 100], 10, 0.90, 4.8),
    ([100, 100], 64, 0.92, 8.0),
]
BY_HAND, AVALANCHE = "by hand", "Avalanche's Replay, its SplitMNIST"
OURS = {"reservoir": {"memory": "reservoir"}, "balanced": {"memory": "balanced"}}


def measure(effort: Effort) -> list[Row]:
    rows = []
    for hidden, batch, most, least in COLUMNS:
        named = {f"ours, {name}": plan(hidden, batch, s, effort) for name, s in OURS.items()}
        problem = problem_of(next(iter(named.values())), hidden, batch)
        calls = {
            **ways_by_hand(problem),
            **{name: partial(ours.run, made) for name, made in named.items()},
            **avalanche_ways(problem, next(iter(named.values())).stream),
        }
        found = paired({name: partial(cpu, call) for name, call in calls.items()}, effort.rounds)
        setting = f"MLP {len(hidden)}x{hidden[0]}, {batch}+{batch}"
        rows += compared(setting, found, BY_HAND, dict.fromkeys(named, Goal("at most", most)))
        for name in named if AVALANCHE in found else ():
            slower, seconds = ratios(found, AVALANCHE, name), found[AVALANCHE]
            rows.append(Row(setting, AVALANCHE, name, slower, "", seconds, Goal("at least", least)))
    return rows


def plan(hidden: list[int], batch: int, strategy: dict[str, Any], effort: Effort) -> Plan:
    """Return the plan of a column; only full size has all images."""
    samples = effort.pick((40, 10), (500, 100), (None, None))
    return ours.plan(
        {
            "stream": {"name": STREAM, "samples": samples[0], "test_samples": samples[1]},
            "strategy": {"name": "er", "memory_size": MEMORY, **strategy},
            "model": {"name": "mlp", "hidden": hidden},
            "batch_size": batch,
            "optimizer": {"lr": LR},
        }
    )


def ways_by_hand(problem: Problem) -> dict[str, Callable[[], object]]:
    """Return the loops by hand, by name."""
    return {
        BY_HAND: partial(loop, problem),
        "the same, fused SGD": partial(loop, problem, FusedStepper),
        "the same, steps by hand": partial(loop, problem, ForeachStepper),
        "the same, gradients by hand": partial(loop, problem, GradientsByHand),
        "by hand, a reservoir at every step": partial(loop, problem, memory=Reservoir),
        "forward and backward alone": partial(limit, problem),
    }


def avalanche_ways(problem: Problem, stream: Stream) -> dict[str, Callable[[], object]]:
    """Return the runs of Avalanche's Replay, by name."""
    avalanche_loop.require()

    def learn(benchmark: Any) -> None:
        network = nn.Sequential(nn.Flatten(), problem.network())
        avalanche_loop.replay(benchmark, network, problem.batch, problem.memory, problem.lr)

    return {
        AVALANCHE: partial(learn, avalanche_loop.split_mnist(stream)),
        "Avalanche's Replay, our tensors": partial(learn, stream.to_avalanche()),
    }


def problem_of(made: Plan, hidden: list[int], batch: int) -> Problem:
    """Return what the loops by hand are given."""
    train = [(x.flatten(1), y) for x, y in ours.inputs(made)]
    test = ours.inputs(made, "test")
    x, y = torch.cat([x.flatten(1) for x, _ in test]), torch.cat([y for _, y in test])
    return Problem(train, (x, y), [len(y) for _, y in test], hidden, batch, MEMORY, LR)
