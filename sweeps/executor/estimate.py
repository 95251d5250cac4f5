"""The duration of a sweep, estimated by a short trial of each of its kinds of run."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from cl_platform.config.per_experience import StepConfig, at
from cl_platform.config.process import process_restored
from cl_platform.engine.fold import Fold
from cl_platform.engine.optimization import device_fault
from cl_platform.engine.plan import Plan, Step
from cl_platform.engine.planner import Planner
from cl_platform.engine.training import batch_sizes
from cl_platform.errors import RunFailed
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from sweeps.planning import Run

BATCHES = 12  # of each trial


def estimate(runs: Sequence[Run], planner: Planner, trained: Collection[str] = ()) -> float | None:
    """Estimate the seconds that one worker needs for all distinct steps of the runs.

    Each kind of run (all settings but seed, order and fractions) is tried on a dozen batches of its
    first two experiences and one evaluation, on this machine. None if it lacks the device.

    Args:
        trained: addresses of states that need no training any more.
    """
    seen = set(trained)
    paces: dict[str, tuple[float, float]] = {}
    total = 0.0
    for run in runs:
        new = [k for k in range(1, run.upto + 1) if run.keys[k] not in seen]
        if not new:
            continue
        seen.update(run.keys[k] for k in new)
        plan = planner(run.config, run.order)
        settings = run.config.model_dump(exclude={"seed", "curriculum"})
        kind = json.dumps(_without_fractions(settings), default=str)
        if device_fault(run.config.device):
            return None
        if kind not in paces:
            try:
                paces[kind] = pace(plan)
            except RunFailed:  # the sweep will record it
                continue
        per_batch, per_evaluation = paces[kind]
        steps = [(plan.steps[k - 1], plan.at(k)) for k in new]
        total += per_batch * sum(_batches(*step) for step in steps)
        evaluations = sum(_evaluations_within(*step) for step in steps)
        total += per_evaluation * (evaluations + sum(map(plan.evaluates, new)))
    return total


def pace(plan: Plan) -> tuple[float, float]:
    """Measure the seconds of one batch and of one evaluation."""
    size = plan.config.batch_size
    short = tuple(_shortened(step, BATCHES * size) for step in plan.steps[:2])
    config = plan.config.model_copy(update={"epochs": 1, "evaluate_every": 0})
    with process_restored():
        torch.set_num_threads(1)
        plain = replace(plan, config=config, steps=short, pacing=None)
        fold = Fold(plain, StateStore(None), Trackers())
        for step in short:
            began = time.perf_counter()
            fold.train()
            seconds = (time.perf_counter() - began) / _batches(step, at(config, 1))
        fold.evaluate()
        began = time.perf_counter()
        fold.evaluate()
        return seconds, time.perf_counter() - began


def _without_fractions(value: Any) -> Any:
    """Replace fractions by 0: learning rates and the like have no effect on time."""
    if isinstance(value, dict):
        return {k: _without_fractions(v) for k, v in value.items()}
    return 0.0 if isinstance(value, float) else value


def _shortened(step: Step, n: int) -> Step:
    rows = torch.arange(min(n, len(step.experience.train)))
    experience = step.experience.subset(rows)
    return replace(step, experience=experience, sources=(experience,))


def _batches(step: Step, config: StepConfig) -> int:
    n = sum(len(e.train) for e in step.sources)
    return config.epochs * len(batch_sizes(n, config.batch_size))


def _evaluations_within(step: Step, config: StepConfig) -> int:
    """Count the evaluations within an experience, without that of its end."""
    return (_batches(step, config) - 1) // config.evaluate_every if config.evaluate_every else 0
