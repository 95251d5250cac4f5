"""The form of a result's document: what a reader may rely on."""

from __future__ import annotations

import math
import shlex
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from cl_platform.config.run_config import SECTIONS
from cl_platform.core.matrix import MASKS, OWN_MASK

Scenario = Literal["class", "task", "domain"]  # core.stream has it as well, and needs torch
Row = list[Annotated[float, Field(ge=0, le=1)]]
PartialRow = list[Annotated[float, Field(ge=0, le=1)] | None]
Visit = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class Form(BaseModel):
    """A form whose values have exactly the types it names; there may be more of them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Experience(Form):
    name: str
    identity: str
    task: int
    classes: list[int]


class ResultForm(Form):
    """The content of `result.json`; see :class:`cl_platform.results.result.Result`."""

    run_id: str
    config: dict[str, Any]
    stream: str
    scenario: Scenario
    order: Annotated[list[int], Field(min_length=1)]
    experiences: Annotated[list[_Experience], Field(min_length=1)]
    matrix: dict[str, list[Row]]
    validation: dict[str, list[Row]]
    metrics: dict[str, float | None]
    cost: dict[str, float]
    versions: dict[str, str]
    ended: str = ""
    command: str | None = None
    calibration: list[PartialRow] | None = None
    class_accuracy: list[PartialRow] | None = None
    anytime: list[Point] = Field(default_factory=list)
    visits: list[Visit] = Field(default_factory=list)
    anytime_by_experience: list[PartialRow] = Field(default_factory=list)
    plasticity: dict[str, list[float | None]] = Field(default_factory=dict)
    probes: list[PartialRow] | None = None
    rows: list[NonNegativeInt] = Field(default_factory=list)
    predictions: list[str | None] = Field(default_factory=list)
    labels: list[NonNegativeInt] = Field(default_factory=list)


def check_result(data: dict[str, Any]) -> None:
    """Check that a document is a whole result.

    Raises:
        ValueError: it is not.
    """
    ResultForm.model_validate(data)
    config, columns = data["config"], len(data["experiences"])
    held_out = sum(bool(e.get("held_out")) for e in data["experiences"])
    tables = [*data["matrix"].values(), *data["validation"].values()]
    tables += [data[name] for name in ("calibration", "probes") if data.get(name) is not None]
    visits = data.get("visits", [])
    steps = len(visits) or columns - held_out
    measured = data.get("rows") or [0, steps]
    rows = len(data.get("rows", ())) or steps + 1
    sound = (
        all(isinstance(config[key]["name"], str) for key in SECTIONS)
        and isinstance(config["seed"], int)
        and OWN_MASK[data["scenario"]] in data["matrix"]
        and data["matrix"].keys() <= {*MASKS}
        and all(experience < columns for experience, _ in visits)
        and (measured[0], measured[-1]) == (0, steps)
        and all(len(table) == rows for table in tables)
        and all(len(row) == columns for table in tables for row in table)
        and len(data.get("class_accuracy") or tables[0]) == rows
        and all(len(row) == columns for row in data.get("anytime_by_experience", []))
        and all(len(values) == rows for values in data.get("plasticity", {}).values())
        and len(data.get("predictions") or tables[0]) == rows
        and math.isfinite(data["metrics"]["average_accuracy"])
        and _is_command(data.get("command"))
    )
    if not sound:
        raise ValueError("a result that is not whole")


def _is_command(text: str | None) -> bool:
    """Return whether a text, which people copy into a shell, is a ``clp run`` and nothing else."""
    words = ["clp", "run"] if text is None else shlex.split(text)
    return words[:2] == ["clp", "run"] and text in (None, shlex.join(words))
