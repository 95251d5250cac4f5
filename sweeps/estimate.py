"""How long a sweep will take, from a short trial of each of its kinds of run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from cl_platform.config import RunConfig
from cl_platform.fold import Fold
from cl_platform.plan import Plan, Planner, Step
from cl_platform.store import StateStore
from cl_platform.tracking import Trackers
from cl_platform.training import batch_sizes
from sweeps.plan import Run

BATCHES = 12  # of each trial


def estimate(runs: Sequence[Run], planner: Planner) -> float:
    """Seconds that one worker would need for all distinct steps of the runs.

    Each kind of run (all settings but seed and order) is tried on a dozen batches of its first two
    experiences and one evaluation, on this machine.
    """
    seen: set[str] = set()
    paces: dict[str, tuple[float, float]] = {}
    total = 0.0
    for run in runs:
        new = [k for k in range(1, run.upto + 1) if run.keys[k] not in seen]
        if not new:
            continue
        seen.update(run.keys[k] for k in new)
        plan = planner(run.config, run.order)
        kind = _kind(run.config)
        if kind not in paces:
            paces[kind] = pace(plan)
        per_batch, per_evaluation = paces[kind]
        steps = [plan.steps[k - 1] for k in new]
        total += sum(_batches(s, run.config) * per_batch + per_evaluation for s in steps)
    return total


def pace(plan: Plan) -> tuple[float, float]:
    """Seconds of one batch and of one evaluation, measured."""
    size = plan.config.batch_size
    short = tuple(_shortened(step, BATCHES * size) for step in plan.steps[:2])
    config = plan.config.model_copy(update={"epochs": 1})
    fold = Fold(replace(plan, config=config, steps=short), StateStore(None), Trackers())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in short:
            began = time.perf_counter()
            fold.train()
            seconds = (time.perf_counter() - began) / _batches(step, config)
        fold.evaluate()
        began = time.perf_counter()
        fold.evaluate()
        return seconds, time.perf_counter() - began
    finally:
        torch.set_num_threads(threads)


def _kind(config: RunConfig) -> str:
    return config.model_dump_json(exclude={"seed", "curriculum"})


def _shortened(step: Step, n: int) -> Step:
    rows = torch.arange(min(n, len(step.experience.train)))
    experience = step.experience.subset(rows)
    return replace(step, experience=experience, sources=(experience,))


def _batches(step: Step, config: RunConfig) -> int:
    n = sum(len(e.train) for e in step.sources)
    return config.epochs * len(batch_sizes(n, config.batch_size))
