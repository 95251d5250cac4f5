"""The record of a sweep: what was done and what failed, the table of results, and its JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cl_platform.engine.execution import execute
from cl_platform.report.runs import read_runs
from cl_platform.storage.sealed import FAILURE
from sweeps import record
from sweeps.record import Phase
from sweeps.spec import parse_spec
from tests.helpers.report_runs import reseal
from tests.helpers.sweep_runs import LRS, PLANNER, SEEDS, Tuned, by_lr, planned, spec


def test_a_run_is_done_failed_or_missing() -> None:
    done, failed, missing = planned({"seed": [0, 1, 2]})
    phase = Phase("runs", [done, failed, missing])
    phase.done.add(done.run_id)
    phase.errors[failed.run_id] = "it broke"
    assert [run["status"] for run in phase.to_json()["runs"]] == ["done", "failed", "missing"]
    assert [run.get("error") for run in phase.to_json()["runs"]] == [None, "it broke", None]


def test_a_failure_is_on_record_until_it_is_forgotten(tmp_path: Path) -> None:
    run, other = planned({"seed": [0, 1]})
    assert record.failure(tmp_path, run) is None
    record.write_failure(tmp_path, run, "it broke", "Traceback ...")
    assert record.failure(tmp_path, run) == "it broke"
    assert record.failure(tmp_path, other) is None
    assert not record.is_done(tmp_path, run)
    record.forget_failure(tmp_path, run)
    record.forget_failure(tmp_path, run)
    assert record.failure(tmp_path, run) is None


def test_a_failure_that_was_edited_is_set_aside_and_the_run_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = planned()
    path = tmp_path / "runs" / run.run_id / "failed.json"
    record.write_failure(tmp_path, run, "it broke", None)
    reseal(path, FAILURE, lambda data: data.update(experiences="5"))
    assert record.failure(tmp_path, run) is None
    record.write_failure(tmp_path, run, "it broke", None)
    path.write_text(path.read_text().replace("broke", "works"))
    assert record.failure(tmp_path, run) is None
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not path.exists()


def test_the_table_of_results_has_the_axes_and_the_runs_order(tmp_path: Path) -> None:
    runs = planned({"strategy": ["finetune", "joint"], "seed": [1, 0]})
    record.write_sweep(tmp_path, spec(), [Phase("runs", runs)], "running")
    assert read_runs(tmp_path).frame.empty
    for run in (runs[3], runs[0]):
        execute(PLANNER(run.config, run.order), tmp_path)
    assert [record.is_done(tmp_path, run) for run in runs] == [True, False, False, True]
    frame = read_runs(tmp_path).frame
    assert frame["run_id"].tolist() == [runs[0].run_id, runs[3].run_id]
    assert frame["axis.strategy"].tolist() == ["finetune", "joint"]
    assert frame["axis.seed"].tolist() == ["1", "0"]
    assert frame["strategy.name"].tolist() == ["finetune", "joint"]


def strict(text: str) -> Any:
    """JSON as other programs read it: without nan."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_record_of_a_sweep_is_json_with_all_that_was_chosen(tmp_path: Path) -> None:
    tuned = Tuned({**LRS, **SEEDS}, by_lr((0.9, 0.1), (0.6, 0.7), (0.5, None)))
    choices = tuned.choose()
    record.write_sweep(tmp_path, tuned.spec, [tuned.phase], "done", chosen=choices)
    data = strict((tmp_path / "sweep.json").read_text())
    assert parse_spec(data["spec"]) == tuned.spec
    assert data["chosen"][0]["point"] == {"lr": "0.2"}
    assert [run["status"] for run in data["phases"][0]["runs"]] == ["done"] * 5 + ["failed"]


def test_the_record_of_a_sweep_is_json_with_metrics_that_are_undefined(tmp_path: Path) -> None:
    phase = Phase("tune", planned(tune={"experiences": 1}))
    phase.metrics[phase.runs[0].run_id] = {"validation/forgetting": math.nan}
    record.write_sweep(tmp_path, spec(), [phase], "done")
    strict((tmp_path / "sweep.json").read_text())
