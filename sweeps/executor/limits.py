"""How long the work of a worker may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweeps.executor.pool import WorkerHandle
from sweeps.spec import SweepSpec


def overdue(
    spec: SweepSpec, worker: WorkerHandle, made: Callable[[WorkerHandle], set[str]]
) -> str | None:
    """Return which limit the present work of a worker is beyond, in one line.

    Args:
        made: returns the states of this work that are there.
    """
    budget, batch = spec.budget, worker.batches[0]
    minutes = (time.monotonic() - worker.since) / 60
    limit = budget.minutes_per_run
    if limit is not None and minutes + batch[0].spent / 60 > limit:
        return f"took longer than budget.minutes_per_run={limit:g} allows, and was ended"
    limit = budget.minutes_per_experience
    if limit is None or minutes <= limit:
        return None
    # Without sharing nothing tells how far it is.
    done = len(made(worker)) if spec.share else sum(len(s.keys) for s in batch) - 1
    if minutes <= limit * (done + 1):
        return None
    return (
        f"an experience took longer than budget.minutes_per_experience={limit:g} allows, and was "
        "ended"
    )
