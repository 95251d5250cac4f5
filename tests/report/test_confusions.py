"""Confusion matrices on a report's page: as many as it holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.metrics.prediction_metrics import confusion
from cl_platform.report.measured import confusions as module
from cl_platform.report.measured.confusions import confusions
from cl_platform.report.render import render
from cl_platform.report.runs import read_runs

STREAM = {"name": "blobs", "samples_per_class": 6, "experiences": 2, "dimensions": 4}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("confusions")
    for seed, kept in ((0, "top"), (1, "top"), (2, "none")):
        clp.run(STREAM, "finetune", seed=seed, out=folder, predictions=kept)
    return folder


def test_a_run_has_one_for_every_row(out: Path) -> None:
    results = read_runs(out).results
    found = confusions(results)
    by_seed = {r.config["seed"]: f for r, f in zip(results, found, strict=True)}
    assert [sorted(by_seed[seed]) for seed in (0, 1, 2)] == [[0, 1, 2], [0, 1, 2], []]
    for result, rows in zip(results, found, strict=True):
        for row, counts in rows.items():
            assert counts == confusion(result.predictions()[row]).tolist()
            right = np.diagonal(counts).sum() / len(result.predictions()[row])
            assert right == pytest.approx((result.matrix.values[row]).mean(), abs=1e-9)


def test_of_too_many_there_are_the_last_and_of_as_many_runs_as_fit(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [r for r in read_runs(out).results if r.kept]
    cells = results[0].class_accuracy.shape[1] ** 2  # type: ignore[union-attr]
    monkeypatch.setattr(module, "MOST_CELLS", 2 * cells)
    assert [[*rows] for rows in confusions(results)] == [[2], [2]]
    monkeypatch.setattr(module, "MOST_CELLS", 2 * cells - 1)
    assert [[*rows] for rows in confusions(results)] == [[2], []]
    monkeypatch.setattr(module, "MOST_CLASSES", 3)
    assert confusions(results) == [{}, {}]


def test_what_is_not_there_any_more_is_left_out(out: Path, tmp_path: Path) -> None:
    (result, *_) = (r for r in read_runs(out).results if r.kept)
    assert confusions([replace(result, path=tmp_path / "runs" / result.run_id)]) == [{}]


def test_the_page_holds_them(out: Path) -> None:
    runs = read_runs(out)
    text = render(runs, "html").decode()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    assert {run["id"]: len(run["confusions"]) for run in data["runs"]} == {
        r.run_id: len(r.kept) for r in runs.results
    }
    assert "id=run-confusion" in text
