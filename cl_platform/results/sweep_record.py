"""What a sweep says of its runs: `sweep.json`, and `failed.json` beside a run that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cl_platform.core.matrix import Accuracies
from cl_platform.errors import StorageError
from cl_platform.results.form import Form
from cl_platform.storage.sealed import FAILURE, SWEEP, read_sealed

RunId = Annotated[str, Field(pattern=r"^\w+$")]  # the name of a folder


class _Run(Form):
    run_id: RunId
    point: dict[str, str]
    whole: bool
    error: str = ""
    metrics: dict[str, float | None] = Field(default_factory=dict)


class _Tally(Form):
    runs: int
    done: int
    failed: int
    experiences: int
    distinct: int


class _Trial(Form):
    group: dict[str, str]
    values: dict[str, Any]
    objectives: list[float | None]
    point: dict[str, str] = Field(default_factory=dict)
    error: str | None = None


class _Phase(Form):
    name: str
    runs: list[_Run]
    tally: _Tally
    trials: list[_Trial] = Field(default_factory=list)


class _Choice(Form):
    group: dict[str, str] = Field(default_factory=dict)
    point: dict[str, str]
    objective: float | None
    seeds: int


class _Tune(Form):
    method: str = "all"
    metric: str = "average_accuracy"
    experiences: int | str = "all"
    per: list[str] | None = None


class _Spec(Form):
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Any] = Field(default_factory=dict)
    tune: _Tune | None = None
    references: list[Literal["joint", "experts"]] = Field(default_factory=list)


class _Reference(Form):
    settings: str
    joint: Accuracies | None = None
    experts: Accuracies | None = None


class _Affinity(Form):
    affinity: str
    stream: str
    experiences: list[str]
    matrix: list[list[float]]


class SweepForm(Form):
    """The content of `sweep.json`."""

    name: str
    status: str
    seconds: float
    spec: _Spec
    chosen: list[_Choice]
    scores: dict[str, dict[str, float | None]]
    phases: Annotated[list[_Phase], Field(min_length=1)]
    references: list[_Reference]
    affinities: list[_Affinity] = Field(default_factory=list)


class FailureForm(Form):
    """The content of `failed.json`; `experiences` are those that were to be learned."""

    run_id: str
    error: str
    experiences: Annotated[int, Field(ge=0)]


def read_sweep(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `sweep.json`; empty if there is none that can be used.

    Raises:
        StorageError: it cannot be read.
    """

    def parse(data: dict[str, Any]) -> dict[str, Any]:
        SweepForm.model_validate(data)
        return data

    return read_sealed(folder / "sweep.json", SWEEP, parse) or {}


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Return the content of `failed.json` in a run's folder, or None if there is none to be used.

    Raises:
        StorageError: it cannot be read.
    """

    def parse(data: dict[str, Any]) -> dict[str, Any]:
        FailureForm.model_validate(data)
        if data["run_id"] != folder.name:
            raise StorageError(f"it is of run {data['run_id']}")
        return data

    return read_sealed(folder / "failed.json", FAILURE, parse)
