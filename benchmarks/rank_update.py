"""Do incremental rank updates gain from the past? Beside their ablation and separate models.

Permuted-MNIST with known tasks. Each strategy gets the learning rate that is best on validation
data in a run with a seed that is not among those reported. Prints two tables and,
with --write, puts them into docs/rank_update_results.md. Results are kept under --out, so that an
interrupted study goes on where it was.

    python benchmarks/rank_update.py --write --jobs 2
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from document import write_table

import cl_platform as clp
from cl_platform.metrics.bounds import SHARE
from cl_platform.metrics.comparison import bounded_mean, paired
from cl_platform.metrics.statistics import Interval

SEEDS = range(5)
TUNING_SEED = 100
RATES = (0.001, 0.003, 0.01, 0.03)
TASKS, TRAINED, EPOCHS = 10, 5000, 10

METHOD = "rank updates"
STRATEGIES: dict[str, dict[str, Any]] = {
    METHOD: {"terms": "shared"},
    "old selectors at 0": {"terms": "new"},
    "own models, equal size": {"terms": "own", "rank_first": 2, "rank_next": 0},
    "own models, equal rank": {"terms": "own"},
}


def stream(seed: int) -> clp.Stream:
    """Ten permutations of the seed's own; 5,000 training and 2,000 validation images in each."""
    from streams.images import permuted_mnist

    whole = permuted_mnist(
        scenario="task", experiences=TASKS, permutation_seed=seed, validation=1 / 30
    )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(whole[0].train), generator=generator)[:TRAINED].sort().values
    return replace(whole, experiences=tuple(e.subset(rows) for e in whole.experiences))


def outcome(name: str, lr: float, seed: int, out: Path) -> clp.Result:
    """One run; the stored result if it has ended before."""
    return clp.run(
        stream(seed),
        {"name": "rank-update", **STRATEGIES[name]},
        model={"name": "mlp", "hidden": [256, 256]},
        optimizer={"name": "adam", "lr": lr},
        epochs=EPOCHS,
        batch_size=128,
        seed=seed,
        out=out,
        keep="last",
    )


def chosen_rates(pool: ProcessPoolExecutor, out: Path) -> dict[str, float]:
    """By strategy, the learning rate with the best mean validation accuracy at the end."""
    pairs = list(product(STRATEGIES, RATES))
    tried = pool.map(outcome, *zip(*((*pair, TUNING_SEED, out) for pair in pairs), strict=True))
    scores = {
        pair: float(result.validation["task"].values[-1].mean())
        for pair, result in zip(pairs, tried, strict=True)
    }
    for (name, lr), score in scores.items():
        print(f"validation accuracy of {name} with lr={lr:g}: {score:.4f}", flush=True)
    return {name: max(RATES, key=lambda lr: scores[name, lr]) for name in STRATEGIES}


def comparison(found: dict[str, list[clp.Result]], rates: dict[str, float]) -> Iterator[str]:
    """Mean accuracies, and what rank updates have more, paired by seed."""
    yield (
        "| strategy | lr | parameters at the end | accuracy [95 %] | rank updates have more [95 %] "
        f"| p | on tasks 2 to {TASKS} [95 %] | p |"
    )
    yield "|---" * 8 + "|"
    every, later = accuracies(found, first=0), accuracies(found, first=1)
    for name, own in every.items():
        size = f"{found[name][0].cost['parameters']:,.0f}"
        mean = shown(bounded_mean(list(own.values()), SHARE))
        gains = [paired(scores[METHOD], scores[name]) for scores in (every, later)]
        more = [f"{shown(gain.difference, '+')} | {gain.p:.2g}" for gain in gains]
        more = ["|"] * 2 if name == METHOD else more
        yield f"| {name} | {rates[name]:g} | {size} | {mean} | {' | '.join(more)} |"


def accuracies(found: dict[str, list[clp.Result]], first: int) -> dict[str, dict[int, float]]:
    """Return, by strategy and seed, the final mean test accuracy on all tasks from `first` on."""
    return {
        name: {
            seed: float(result.matrix.values[-1, first:].mean())
            for seed, result in zip(SEEDS, results, strict=True)
        }
        for name, results in found.items()
    }


def by_task(found: dict[str, list[clp.Result]]) -> Iterator[str]:
    """Yield the rows of a table of each task's mean accuracy over seeds."""
    yield "| strategy | " + " | ".join(f"task {task + 1}" for task in range(TASKS)) + " |"
    yield "|---" * (TASKS + 1) + "|"
    for name, results in found.items():
        mean = np.mean([result.matrix.values[-1] for result in results], axis=0)
        yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in mean) + " |"


def shown(interval: Interval, sign: str = "") -> str:
    """An estimate with its interval, four digits."""
    value, low, high = (f"{v:{sign}.4f}" for v in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clp-results"))
    parser.add_argument("--write", action="store_true", help="update docs/rank_update_results.md")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        rates = chosen_rates(pool, arguments.out)
        pending = {
            name: [pool.submit(outcome, name, lr, seed, arguments.out) for seed in SEEDS]
            for name, lr in rates.items()
        }
        found = {name: [run.result() for run in runs] for name, runs in pending.items()}
    for name, lines in (("table", comparison(found, rates)), ("places", by_task(found))):
        written = list(lines)
        print("\n".join(written), end="\n\n")
        if arguments.write:
            write_table(name, "rank_update_results.md", written)


if __name__ == "__main__":
    main()
