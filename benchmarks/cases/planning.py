"""Planning: seconds for thousands of runs, and memory that does not grow with them.

2040 runs are 17 seeds of 120 orders, planned with the keys of all states. "More memory" is what a
planner holds after all runs beyond what it held after those of the first seed, where each seed
deals the class indices anew and the prepared test data of each seed are asked for.
"""

from __future__ import annotations

import itertools
import resource
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Effort, NotMeasured, Row, wall
from cl_platform.config.run_config import parse_config
from cl_platform.engine.evaluation import Evaluator
from cl_platform.engine.planner import Planner
from cl_platform.errors import DataError
from sweeps.planning import plan_runs
from sweeps.spec import parse_spec


def measure(effort: Effort) -> list[Row]:
    seeds = effort.pick(1, 17, 17)
    spec = parse_spec(
        {"axes": {"strategy": ["er"], "curriculum": ["all"], "seed": {"range": seeds}}}
    )
    try:
        plan = partial(wall, lambda: plan_runs(spec, Planner()))
        plan()
        seconds = [plan() for _ in range(effort.rounds)]
        grown = [megabytes(*effort.pick((10, 2), (100, 3), (2000, 20)))]
    except DataError as error:
        raise NotMeasured(str(error)) from error
    return [
        Row("Split-MNIST", f"planning {120 * seeds} runs", values=seconds, unit=" s"),
        Row("Split-Fashion-MNIST", "more memory after the first seed", values=grown, unit=" MB"),
    ]


def megabytes(orders: int, seeds: int) -> float:
    """Return by how much a planner grows from its first seed to its last."""
    stream = {"name": "split-fashion-mnist", "experiences": 10}
    config = parse_config({"stream": stream, "permute_labels": True})
    chosen = list(itertools.islice(itertools.permutations(range(10)), orders))
    planner, found = Planner(), []
    for seed in range(seeds):
        seeded = config.model_copy(update={"seed": seed})
        for order in chosen:
            plan = planner(seeded, order)
            if "test" not in plan.evaluators:
                plan.evaluators["test"] = Evaluator(plan.stream, torch.device("cpu"))
        found.append(resident())
    return found[-1] - found[0]


def resident() -> float:
    """Return the resident memory of this process, in MB.

    Raises:
        NotMeasured: this system does not tell.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError as error:
        raise NotMeasured("resident memory is read from /proc, which this system lacks") from error
    return pages * resource.getpagesize() / 1e6
