"""Searches for an order that the tests carry out in their own process."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from sweeps.record import Phase
from sweeps.spec import SweepSpec, parse_spec
from sweeps.tuning.choice import Choice
from sweeps.tuning.order_search import search_orders
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER

ER = {"name": "er", "memory_size": 40}
BASE = {
    "stream": {"name": "split-digits", "experiences": 4, "validation": 0.2},
    "model": {"name": "mlp", "hidden": [20]},
    "strategy": ER,
    "batch_size": 30,
}
FOUR = list(permutations(range(4)))
WHOLE = 64  # states of the tree of all orders of four experiences


def spec(tune: dict[str, Any], seeds: list[int] | None = None, **more: Any) -> SweepSpec:
    base = {**BASE, **more.pop("base", {})}
    axes = {"seed": seeds or [0], **more.pop("axes", {})}
    return parse_spec({"base": base, "axes": axes, "tune": tune, **more})


class Searched:
    """A search in this process."""

    def __init__(self, out: Path, given: SweepSpec) -> None:
        self.spec, self.phase = given, Phase("tune", [])
        driver = Here(given, out, PLANNER)
        self.chosen: list[Choice] = search_orders(driver, self.phase)

    @property
    def tried(self) -> dict[tuple[int, ...], float]:
        """The objective of every order and beginning, as they were tried one after the other."""
        return objectives(self.phase)

    @property
    def best(self) -> tuple[int, ...]:
        return tuple(self.chosen[0].config.curriculum["order"])


def objectives(phase: Phase) -> dict[tuple[int, ...], float]:
    return {
        tuple(map(int, trial["values"]["curriculum"].split())): trial["objectives"][0]
        for trial in phase.trials
    }


def alone(order: tuple[int, ...], seed: int, upto: int = 4, **more: Any) -> float:
    """The validation accuracy of the first experiences of an order, as a run by itself gives it."""
    rest = [i for i in range(4) if i not in order]
    data = {**BASE, **more, "curriculum": [*order, *rest], "seed": seed}
    result = execute(make_plan(parse_config(data)), None)
    return float(result.validation["seen"].values[upto, :upto].mean())
