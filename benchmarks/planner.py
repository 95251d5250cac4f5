"""Memory and time of a planner over many orders and seeds: ``python -m benchmarks.planner``.

Each seed deals the class indices anew, and the test data of each seed are prepared as its first run
would do it. What a planner caches is bounded, so that memory must not grow with the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time

import torch

from cl_platform.config.run_config import parse_config
from cl_platform.engine.evaluation import Evaluator
from cl_platform.engine.planner import Planner


def megabytes() -> float:
    """Return the resident memory of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", default="split-fashion-mnist")
    parser.add_argument("--orders", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    stream = {"name": arguments.stream, "experiences": 10}
    config = parse_config({"stream": stream, "permute_labels": True})
    orders = list(itertools.islice(itertools.permutations(range(10)), arguments.orders))
    planner = Planner()
    planner(config, orders[0])
    start, first = time.perf_counter(), megabytes()
    for seed in range(arguments.seeds):
        seeded = config.model_copy(update={"seed": seed})
        for order in orders:
            plan = planner(seeded, order)
            if "test" not in plan.evaluators:
                plan.evaluators["test"] = Evaluator(plan.stream, torch.device("cpu"))
        seconds = time.perf_counter() - start
        n = (seed + 1) * len(orders)
        grown = megabytes() - first
        print(
            f"{n:>6} plans  {1e3 * seconds / n:5.2f} ms a plan  {grown:6.0f} MB more than at first"
        )


if __name__ == "__main__":
    main()
