"""`result.json`: what is read is a whole result of the run that is asked for, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_platform import Result
from cl_platform.results.result import KEY
from tests.helpers.report_runs import changed, one_run, put, reseal


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """The document of a real run, to be changed."""
    return one_run(2)


def folder_of(out: Path, number: int = 1) -> Path:
    return out / "runs" / f"{number:012x}"


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no accuracy": lambda d: d["metrics"].update(average_accuracy=None),
    "accuracy as text": lambda d: d["metrics"].update(average_accuracy="0.9"),
    "a metric as text": lambda d: d["metrics"].update(forgetting="little"),
    "a metric as a list": lambda d: d["metrics"].update(forgetting=[0.1]),
    "a cost as text": lambda d: d["cost"].update(seconds="1"),
    "a seed as text": lambda d: d["config"].update(seed="1"),
    "a row too few": lambda d: d["matrix"]["seen"].pop(),
    "a column too few": lambda d: [row.pop() for row in d["matrix"]["seen"]],
    "an accuracy of 2": lambda d: d["matrix"]["seen"][1].__setitem__(0, 2.0),
    "an accuracy of nan": lambda d: d["matrix"]["seen"][1].__setitem__(0, float("nan")),
    "an experience too few": lambda d: d["experiences"].pop(),
    "an experience without identity": lambda d: d["experiences"][0].pop("identity"),
    "order as text": lambda d: d.update(order=["0", "1"]),
    "no order": lambda d: d.update(order=[]),
    "ragged classes": lambda d: d["class_accuracy"][1].pop(),
    "classes of other rows": lambda d: d["class_accuracy"].pop(),
    "versions as numbers": lambda d: d["versions"].update(torch=2),
    "another command": lambda d: d.update(command="rm -r ~"),
    "two commands": lambda d: d.update(command="clp run; rm -r ~"),
    "half a command": lambda d: d.update(command="clp run 'x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_whole_result_is_set_aside(
    tmp_path: Path, model: dict[str, Any], change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, changed(model, 1))
    assert Result.load(folder_of(tmp_path)) is not None
    reseal(folder_of(tmp_path) / "result.json", KEY, CHANGES[change])
    assert Result.load(folder_of(tmp_path)) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "result.json is corrupt (its form is unknown): kept as result.json.corrupt" in line
    assert Result.load(folder_of(tmp_path)) is None
    assert capsys.readouterr().err == ""


def test_the_run_and_its_configuration_can_be_asked_for(
    tmp_path: Path, model: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, *(changed(model, i) for i in range(3)))
    config = model["config"]
    assert Result.load(folder_of(tmp_path, 0), f"{0:012x}", config) is not None
    assert Result.load(folder_of(tmp_path, 1), f"{0:012x}") is None
    assert f"(it is of run {1:012x})" in capsys.readouterr().err
    assert Result.load(folder_of(tmp_path, 2), f"{2:012x}", {**config, "seed": 9}) is None
    assert "(it is of another configuration)" in capsys.readouterr().err


def test_a_metric_that_is_infinite_is_undefined(model: dict[str, Any]) -> None:
    result = Result.from_json({**model, "metrics": {**model["metrics"], "odd": float("inf")}})
    assert result.to_json()["metrics"]["odd"] is None
