"""Runs that the tests of sweeps plan, and runs that were tuned with numbers made up for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cl_platform.engine.planner import Planner
from sweeps.planning import Run, plan_runs
from sweeps.record import Phase
from sweeps.spec import SweepSpec, parse_spec
from sweeps.tuning import choice as tuning

PLANNER = Planner()  # holds the streams of all tests
BLOBS = {"name": "blobs", "samples_per_class": 6, "dimensions": 4}
VALIDATED = {"name": "split-digits", "experiences": 3, "validation": 0.15}


def spec(axes: dict[str, Any] | None = None, **more: Any) -> SweepSpec:
    base = {"stream": BLOBS, "strategy": "finetune", **more.pop("base", {})}
    return parse_spec({"base": base, "axes": axes or {}, **more})


def planned(axes: dict[str, Any] | None = None, **more: Any) -> list[Run]:
    return plan_runs(spec(axes, **more), PLANNER)


class Tuned:
    """Runs that were tuned, with numbers made up for them."""

    def __init__(self, axes: dict[str, Any], score: Callable[[Run], float | None], **tune: Any):
        self.spec = spec(axes, tune=tune)
        runs = plan_runs(self.spec, PLANNER)
        self.phase = Phase("tune", runs)
        for run in runs:
            value = score(run)
            if value is None:
                self.phase.errors[run.run_id] = f"loss is nan with {run.point}"
            else:
                metrics = {"validation/average_accuracy": value, "average_accuracy": 1 - value}
                self.phase.metrics[run.run_id] = metrics
                self.phase.done.add(run.run_id)

    def choose(self) -> list[tuning.Choice]:
        assert self.spec.tune is not None
        return tuning.choose(self.spec.tune, self.phase, Path("nowhere"))


LRS, SEEDS = {"lr": [0.1, 0.2, 0.3]}, {"seed": [0, 1]}


def by_lr(*scores: Any) -> Callable[[Run], Any]:
    """Scores by learning rate and seed."""
    return lambda run: scores[LRS["lr"].index(run.config.optimizer.lr)][run.config.seed]
