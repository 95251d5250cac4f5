"""Compare where experiences start on sequences of known relation, in a few minutes.

python examples/selective_starts.py

The oracle is the best of all lists of starts, by validation data: runs that share their states.
"""

from __future__ import annotations

import tempfile
from itertools import product
from statistics import mean, stdev
from typing import Any

import cl_platform as clp

RELATIONS = ("positive", "none", "negative", "mixed")
RULES = ("base", "last", "logme", "accuracy", "oracle")
EXPERIENCES, SEEDS = 3, range(5)
SETTINGS: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [64]},
    "epochs": 5,
    "optimizer": {"name": "adam", "lr": 0.001},
}


def accuracy(relation: str, start: Any, seed: int, out: str) -> tuple[float, float]:
    """Return mean accuracy on validation and test data, each task's at the end."""
    stream = {"name": "related", "relation": relation, "samples": 40, "validation": 0.5}
    strategy = {"name": "selective", "start_from": start}
    found = clp.run(stream, strategy, seed=seed, out=out, **SETTINGS).metrics
    return found["validation/average_accuracy"], found["average_accuracy"]


def lists() -> list[list[Any]]:
    """Return all lists of starts: 1, 2, 6, 24... for 1, 2, 3, 4... experiences."""
    return [list(starts) for starts in product(*(["base", *range(k)] for k in range(EXPERIENCES)))]


def compared(relation: str, seed: int) -> dict[str, tuple[float, float]]:
    """Return validation and test accuracy of every rule, and of the best list."""
    with tempfile.TemporaryDirectory() as out:
        best = max(accuracy(relation, starts, seed, out) for starts in lists())
        rules = {rule: accuracy(relation, rule, seed, out) for rule in RULES}
    rules["greedy oracle"] = rules.pop("oracle")
    return {**rules, "oracle": best}


if __name__ == "__main__":
    print("relation  start          validation  regret         test")
    for relation in RELATIONS:
        runs = [compared(relation, seed) for seed in SEEDS]
        for rule in runs[0]:
            regrets = [run["oracle"][0] - run[rule][0] for run in runs]
            validation, test = (mean(run[rule][i] for run in runs) for i in (0, 1))
            regret = f"{mean(regrets):.3f} ± {stdev(regrets):.3f}"
            print(f"{relation:9} {rule:14} {validation:10.3f}  {regret}  {test:.3f}", flush=True)
