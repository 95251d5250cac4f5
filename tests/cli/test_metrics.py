"""`clp metrics`: what there is, and what is added to runs that have ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_platform as clp_
from cl_platform.config.registry import load
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.core.predictions import Predictions
from cl_platform.engine.fold import Fold
from cl_platform.metrics.registry import metric
from cl_platform.results.added import add_metric

Clp = Callable[..., tuple[int, str, str]]
OWN = '''"""Metrics of a user."""

from cl_platform.metrics.registry import metric


def lowest_at_the_end(r):
    """Return the lowest accuracy at the end."""
    return r.values[-1].min()


@metric(computed_from="predictions", direction="less")
def wrong_at_the_end(predictions):
    """Return the share of samples that are wrong at the end."""
    return 1 - predictions[-1].right.mean()


@metric()
def only_of_many(r):
    """Return the first accuracy of a run that learned many experiences."""
    if len(r) < 3:
        raise ValueError("it needs 3 experiences")
    return r.values[-1, 0]
'''
STREAM = {"name": "blobs", "samples_per_class": 6}
registers = pytest.mark.usefixtures("registry_of_metrics")


def run(out: Path, experiences: int = 2, **settings: Any) -> clp_.Result:
    return clp_.run({**STREAM, "experiences": experiences}, "finetune", out=out, **settings)


def saved(result: clp_.Result) -> clp_.Result:
    assert result.path is not None
    found = clp_.load_run(result.path)
    return found


@registers
def test_a_metric_added_later_equals_the_one_computed_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(tmp_path / "later")

    @metric(direction="more")
    def spread(r: AccuracyMatrix) -> float:
        """Return the range of the last row."""
        return float(np.ptp(r.values[-1]))

    @metric(direction="more", computed_from="predictions")
    def doubted(predictions: Predictions) -> float:
        """Return the share of samples whose second class was right."""
        p = predictions[-1]
        return float((p.top[:, 1] == p.y).mean())

    @metric(direction="more", computed_from="calibration")
    def worst_calibration(errors: AccuracyMatrix) -> float:
        """Return the largest calibration error at the end."""
        return float(errors.values[-1].max())

    live = run(tmp_path / "live")
    monkeypatch.setattr(Fold, "train", lambda *_: pytest.fail("it trains"))
    assert live.run_id != before.run_id
    for name in ("spread", "doubted", "worst_calibration"):
        added = add_metric(name, tmp_path / "later")
        assert added.missing == []
    later = saved(before)
    assert later.metrics == live.metrics
    assert {"spread", "task/spread", "doubted", "worst_calibration"} <= later.metrics.keys()
    assert later.matrix == before.matrix


@registers
def test_ours_can_be_computed_again_from_the_file(tmp_path: Path) -> None:
    result = run(tmp_path, evaluate_every=1, predictions="scores")
    assert result.path is not None
    path = result.path / "result.json"
    content = path.read_bytes()
    for name in ("macro_f1", "auc", "forgetting", "calibration_error", "anytime_accuracy"):
        added = add_metric(name, tmp_path)
        assert added.values[result.run_id][name] == result.metrics[name]
    assert path.read_bytes() == content


@registers
def test_functions_of_files_are_added_and_what_cannot_be_is_said(clp: Clp, tmp_path: Path) -> None:
    Path("own.py").write_text(OWN)
    first, second = run(tmp_path / "out", 3), run(tmp_path / "out", predictions="none")
    code, out, err = clp("metrics", "add", "own.py:lowest_at_the_end", "out")
    assert (code, out, err) == (0, "lowest_at_the_end: written for 2 of 2 runs\n", "")
    assert saved(second).metrics["lowest_at_the_end"] == second.matrix.values[-1].min()
    code, out, err = clp("metrics", "add", "own.py:wrong_at_the_end", "out", "--json")
    right = first.predictions()[-1].right.mean()
    assert json.loads(out)["values"] == {
        first.run_id: {"wrong_at_the_end": 1 - right},
        second.run_id: {},
    }
    line = f"run {second.run_id}: wrong_at_the_end is not there: no predictions were kept"
    assert err.splitlines() == [line]
    code, out, err = clp("metrics", "add", "own.py:only_of_many", "out")
    assert code == 0
    assert err == f"run {second.run_id}: only_of_many is not there: it needs 3 experiences\n"
    assert clp("report", "out", "--format", "csv")[0] == 0


@registers
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("macro_f", "unknown metric 'macro_f'. Did you mean 'macro_f1'? `clp metrics` lists them"),
        ("intransigence", "cannot be added: it compares with other runs"),
        ("cost.steps", "cannot be added: the engine measures it while a run goes on"),
        ("nowhere.py:f", "metric 'nowhere.py:f' cannot be imported"),
    ],
)
def test_what_cannot_be_added_is_one_line(clp: Clp, name: str, said: str) -> None:
    code, _, err = clp("metrics", "add", name, "out")
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert len(err) < 500


def test_a_folder_that_is_not_there_is_one_line(clp: Clp) -> None:
    code, _, err = clp("metrics", "add", "macro_f1", "nothing")
    assert code == 1
    assert "no folder nothing" in err


def test_metrics_are_listed(clp: Clp) -> None:
    code, out, _ = clp("metrics", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["macro_f1"]["computed_from"] == "predictions"
    assert found["forgetting"]["better"] == "less"
    code, out, _ = clp("metrics")
    assert code == 0
    assert "negative_flips" in out


def test_the_command_is_registered() -> None:
    assert callable(load("command", "metrics"))
