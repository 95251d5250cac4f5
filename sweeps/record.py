"""The record of a sweep beside the results of its runs: `sweep.json` and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl_platform._version import __version__
from cl_platform.results.references import References
from cl_platform.results.result import Result
from cl_platform.results.sweep_record import read_failure
from cl_platform.storage.files import remove, write_atomic, write_json
from cl_platform.storage.sealed import FAILURE, SWEEP, seal
from sweeps.planning import Run
from sweeps.spec import SweepSpec

Status = Literal["done", "failed", "missing"]


@dataclass
class Tally:
    """The progress of a sweep in numbers.

    Args:
        runs, done, failed: runs in total, and those that ended with and without a result.
        kept: of those done, the ones that had ended before.
        experiences: to train if each run was trained by itself.
        distinct: of these, each once.
        known: of the distinct ones, those trained before.
        trained: of the distinct ones, those trained now.
    """

    runs: int = 0
    done: int = 0
    failed: int = 0
    kept: int = 0
    experiences: int = 0
    distinct: int = 0
    known: int = 0
    trained: int = 0


@dataclass
class Phase:
    """Runs that are carried out together, and their outcome.

    Args:
        errors, metrics: by run, of those that failed and of those that ended.
        done: runs that have ended.
        trials: of an adaptive method.
    """

    name: str
    runs: Sequence[Run]
    tally: Tally = field(default_factory=Tally)
    errors: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    trials: list[dict[str, Any]] = field(default_factory=list)

    def status(self, run: Run) -> Status:
        """Return the status of one of the runs."""
        if run.run_id in self.done:
            return "done"
        return "failed" if run.run_id in self.errors else "missing"

    def to_json(self) -> dict[str, Any]:
        """Return the phase as it stands in `sweep.json`."""
        return {
            "name": self.name,
            "tally": vars(self.tally),
            "runs": [
                {
                    "run_id": run.run_id,
                    "point": run.point,
                    "experiences": run.upto,
                    "whole": run.whole,
                    "status": self.status(run),
                    **({"error": self.errors[run.run_id]} if run.run_id in self.errors else {}),
                    **({"metrics": plain(m)} if (m := self.metrics.get(run.run_id)) else {}),
                }
                for run in self.runs
            ],
            **({"trials": self.trials} if self.trials else {}),
        }


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers for JSON, with None for nan and infinity."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


Scores = Mapping[str, Mapping[str, float]]
"""Scores of the orders of runs, by curriculum and run."""


def write_sweep(
    out: Path,
    spec: SweepSpec,
    phases: Sequence[Phase],
    status: str,
    *,
    chosen: Sequence[Any] = (),
    scores: Scores | None = None,
    affinities: Sequence[Mapping[str, Any]] = (),
    references: References | None = None,
    seconds: float = 0.0,
) -> None:
    """Write `sweep.json`: the specification, the runs of each phase, chosen points, the curricula's
    scores of orders, the affinities they are made from, and references. A report needs this and the
    results of runs, no more."""
    content = {
        "name": spec.name,
        "status": status,
        "version": __version__,
        "seconds": round(seconds, 1),
        "spec": spec.model_dump(mode="json"),
        "chosen": [choice.to_json() for choice in chosen],
        "scores": {name: plain(values) for name, values in (scores or {}).items()},
        "affinities": [*affinities],
        "phases": [phase.to_json() for phase in phases],
        "references": [{"settings": key, **row} for key, row in (references or {}).items()],
    }
    write_atomic(out / "sweep.json", seal(SWEEP, content))


def is_done(out: Path, run: Run) -> bool:
    """Return whether a run has ended with a result that can be used."""
    config = run.config.model_dump(mode="json")
    return Result.load(out / "runs" / run.run_id, run.run_id, config) is not None


def failure(out: Path, run: Run) -> str | None:
    """Return the error of a run that failed before, within the experiences it is to learn now."""
    data = read_failure(out / "runs" / run.run_id)
    return None if data is None or data["experiences"] > run.upto else str(data["error"])


def write_failure(out: Path, run: Run, error: str, details: str | None) -> None:
    """Write the configuration of a run that failed, and its error."""
    folder = out / "runs" / run.run_id
    write_json(folder / "config.json", run.config.model_dump(mode="json"))
    content = {
        "run_id": run.run_id,
        "order": list(run.order),
        "experiences": run.upto,
        "error": error,
        "details": details,
    }
    write_atomic(folder / "failed.json", seal(FAILURE, content))


def forget_failure(out: Path, run: Run) -> None:
    """Remove the error of a run that failed before."""
    remove(out / "runs" / run.run_id / "failed.json")
