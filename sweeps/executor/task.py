"""What a driver and its workers send each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl_platform.config.tracking import Wandb
from cl_platform.core.predictions import Keeping
from cl_platform.models.objects import Parcel
from cl_platform.storage.state_store import CHECKPOINT_MINUTES, PREDICTION_BUDGET_MB, Keep
from sweeps.executor.luggage import Files, needed
from sweeps.planning import Run
from sweeps.spec import Resources


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of a worker that hold for all of its tasks.

    Args:
        out: folder of records and states, the same for all workers.
        budget: of the states, in bytes; None if the driver looks after it.
        streams: references to the data; see :func:`shared_streams`.
        wandb, sinks: who watches the runs.
        group: the name of the sweep, which they are told.
        token: content of the file ``.shared`` in `out`, where the folder is to be found.
        measure: whether outcomes say how much memory of the GPU was taken.
        checkpoint_minutes: between checkpoints within an experience.
        predictions, prediction_budget: what runs keep of them, in bytes at most.
        lanes: as the sweep asks for them; ``auto`` does not say where steps are taken one by one.
        given: the plugins that the sweep was given as objects.
    """

    out: Path
    keep: Keep
    budget: int | None
    share: bool
    resources: Resources
    streams: Mapping[str, Any]
    wandb: Wandb = field(default_factory=Wandb)
    sinks: Sequence[dict[str, Any]] = ()
    group: str = ""
    token: bytes | None = None
    measure: bool = False
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    predictions: Keeping = "top"
    prediction_budget: float = PREDICTION_BUDGET_MB * 1e6
    lanes: int | Literal["auto"] = 1
    given: Parcel | None = None


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Args:
        gpus: that it was assigned, by Ray's names.
        shares: whether it sees the folder of the sweep.
    """

    node: str
    process: int
    gpus: tuple[str, ...] = ()
    shares: bool = True


@dataclass(frozen=True)
class Task:
    """Segments in a row: `run` is trained for `upto` steps, or the runs that end are finished.

    Args:
        branches: addresses of the states to keep.
        transient: of these, the ones that only this task needs; they stay in memory.
        ending: runs to finish.
        check: whether to see first that the strategy goes on from a stored state.
        known: addresses of states whose records are there, as other workers have said.
        start: of these, the one that is stored itself, if that is known.
        alone: whether this process has its GPU for itself, and is to make room there.
        files: reference to what a worker needs whose node does not share the folder.
        lanes: runs that are trained side by side for as many steps, before those that end are
            finished.
    """

    run: Run
    upto: int
    branches: frozenset[str]
    transient: frozenset[str]
    ending: tuple[Run, ...]
    check: bool = False
    known: tuple[str, ...] = ()
    start: str | None = None
    alone: bool = False
    files: tuple[Any, ...] = ()  # a reference inside of something stays a reference
    lanes: tuple[Run, ...] = ()

    def luggage(self, out: Path) -> Files:
        """Return the files in the sweep's folder that the task needs."""
        return needed(out, [(self.run, self.upto), *((run, run.upto) for run in self.ending)])


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    Args:
        metrics: of validation data, by run and name, of the runs that ended.
        error: one line; the runs that need this segment failed.
        details: the end of the traceback of an error that is not a :class:`ClpError`.
        stderr: text written to standard error meanwhile.
        fatal: the sweep cannot go on: the worker has other code or data than the driver, or the
            strategy cannot share states.
        spoilt: a run changed of the worker's process what cannot be put back; it takes no more.
        out_of_memory: the GPU had too little memory.
        stored: addresses of states that were seen to be stored.
        written: bytes of the states that were saved.
        gpu: the most bytes taken of the GPU so far, and all that it has, if they are measured.
        files: what was written on a node that does not share the folder.
    """

    metrics: Mapping[str, Mapping[str, float]]
    error: str | None = None
    details: str | None = None
    stderr: str = ""
    fatal: bool = False
    spoilt: bool = False
    out_of_memory: bool = False
    stored: frozenset[str] = frozenset()
    written: int = 0
    gpu: tuple[int, int] | None = None
    files: Files = field(default_factory=dict)
