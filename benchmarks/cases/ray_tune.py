"""A study of 120 orders, against Avalanche's strategies as trials of Ray Tune.

Split-MNIST with 3200 images of each experience, experience replay, a memory of 200, batches of
64+64, an MLP of two layers of 100 and one of 400, one epoch, evaluation after each experience. Ours
is a sweep over `curriculum: [all]`; theirs is `benchmarks/rivals/ray_tune_study.py`, whose trials
reuse their actors. Theirs carries out some of the 120 orders (their number stands in the first
column) and its seconds are scaled to 120. As many workers as cores on both sides, one thread each.
Wall time from the first worker's beginning to the end, without the start of Ray and the imports of
workers. "Passes alone" are the forward and backward passes and the evaluations of the 325 trainings
that a tree of 120 orders has, on all cores at once, without data, steps, states and records: more
than theirs against these no sweep that trains each beginning once can gain.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.cases.split_mnist import problem_of
from benchmarks.cases.sweeps import cluster, timed
from benchmarks.measure import Effort, Goal, NotMeasured, Row, paired, ratios, wall
from benchmarks.rivals import avalanche_loop, ray_tune_study
from benchmarks.rivals.by_hand import limit

THEIRS, PASSES = "Avalanche and Ray Tune", "passes alone"
TRAININGS = 325  # of 120 orders of five experiences, each beginning once


def measure(effort: Effort) -> list[Row]:
    if effort.size == "quick":
        raise NotMeasured("--quick leaves it out: it takes minutes")
    avalanche_loop.require()
    with cluster():
        return [r for width in effort.pick((100,), (100,), (100, 400)) for r in rows(width, effort)]


def rows(width: int, effort: Effort) -> list[Row]:
    """Return the lines of an MLP of two layers of some width."""
    samples, tests, trials = effort.pick((40, 10, 2), (3200, 500, 8), (3200, 500, 8))
    base = {
        "stream": {"name": "split-mnist", "samples": samples, "test_samples": tests},
        "batch_size": ray_tune_study.BATCH,
        "optimizer": {"lr": ray_tune_study.LR},
        "model": {"name": "mlp", "hidden": [width] * 2},
    }
    axes = {
        "strategy": [{"name": "er", "memory_size": ray_tune_study.MEMORY}],
        "curriculum": ["all"],
    }
    plan = ours.plan(base)
    problem = problem_of(plan, [width] * 2, ray_tune_study.BATCH)
    together = TRAININGS / len(plan.stream) / (os.cpu_count() or 1)
    with TemporaryDirectory() as folder:
        avalanche_loop.write_mnist(plan.stream, Path(folder))
        given = (Path(folder), trials, width, Path(folder, "results"))
        ways = {
            THEIRS: lambda: 120 / trials * ray_tune_study.study(*given),
            "ours": lambda: timed({"base": base, "axes": axes}),
            PASSES: lambda: together * wall(partial(limit, problem)),
        }
        found = paired(ways, effort.rounds, warm_up=False)
    setting = f"2x{width}, {trials} of 120 orders by theirs, {samples} images each"
    goals = {"ours": Goal("at least", 15.0), PASSES: None}
    return [
        Row(setting, THEIRS, against, ratios(found, THEIRS, against), "", found[THEIRS], goal)
        for against, goal in goals.items()
    ]
