"""What is held out is shown apart: in the console, a notebook, figures and the report's page; and
long streams stay light."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import cl_platform as clp
from cl_platform.core.matrix import AccuracyMatrix, evenly
from cl_platform.errors import BadInput
from cl_platform.metrics.zero_shot import adapted_and_held_out
from cl_platform.report.page_data import MOST
from cl_platform.report.render import write_report
from cl_platform.report.runs import read_runs
from cl_platform.results.plots import trajectory_figure
from cl_platform.tracking.console import print_result
from tests.helpers.report_runs import MODEL, one_run, put

DOMAINS = {"name": "rotated-digits", "experiences": 4, "held_out": [1, 3]}
CLASSES = {"name": "split-digits", "held_out": [4]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on domains, one of them with a row at the end alone, and on classes."""
    out = tmp_path_factory.mktemp("runs")
    last, probed = {"evaluate": "last"}, {"epochs": 2, "probe": {"shots": 3}}
    for stream, more in ((DOMAINS, {}), (DOMAINS, last), (CLASSES, probed)):
        clp.run(stream, "finetune", model=MODEL, out=out, keep="none", **more)
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> list[clp.Result]:
    return read_runs(folder).results


def data_of(folder: Path) -> dict[str, Any]:
    text = write_report(read_runs(folder)).read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def printed(result: clp.Result) -> list[str]:
    console = Console(file=io.StringIO(), width=80, highlight=False, color_system=None)
    print_result(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_console_has_a_bar_before_what_is_held_out(results: list[clp.Result]) -> None:
    for result in results:
        title, head = printed(result)[1:3]
        held = len(result.matrix.held_out)
        learned = len(result.matrix) - held
        assert head.split() == [
            "after",
            *map(str, range(1, learned + 1)),
            "|",
            *map(str, range(learned + 1, learned + held + 1)),
        ]
        assert ("held out, 0 by construction" in title) == (result.scenario == "class")
        assert "held out" in title
        rows = {line.split()[0]: line.split() for line in printed(result) if line}
        assert float(rows["zero_shot_retention"][1]) == pytest.approx(
            result.metrics["zero_shot_retention"], abs=1e-4
        )
        assert not any(name.startswith(("mtil.", "curriculum.")) for name in rows)


def test_a_notebook_has_a_gap_before_what_is_held_out(results: list[clp.Result]) -> None:
    for result in results:
        html = result._repr_html_()
        assert html.count('<td style="border:0;padding:0 4px">') == 1 + len(result.matrix.rows)
        assert "held out" in html
    assert "held out" not in clp.Result.from_json(one_run(2))._repr_html_()


def test_the_trajectory_goes_from_before_training_to_the_end(results: list[clp.Result]) -> None:
    for result in results:
        expected = 100 * adapted_and_held_out(result.matrices["task"])
        (axes,) = result.plot_trajectory("task").axes
        line, *ends = axes.get_lines()
        np.testing.assert_allclose(np.c_[line.get_xdata(), line.get_ydata()], expected)
        assert [e.get_label() for e in ends] == ["untrained", "at the end"]
    with pytest.raises(BadInput, match="nothing is held out"):
        trajectory_figure(AccuracyMatrix([[0, 0], [1, 0], [1, 1]]), "")


def test_the_page_knows_what_stands_apart_and_after_which_step(folder: Path) -> None:
    data, results = data_of(folder), read_runs(folder).results
    for run, result in zip(data["runs"], results, strict=True):
        assert run["held_out"] == len(result.matrix.held_out)
        assert run.get("unseen", False) == (result.scenario == "class")
        assert run.get("after", [0, 1, 2, 3, 4][: len(run["matrix"])]) == [*result.matrix.rows]
        assert ("probes" in run) == (result.probes is not None) == (result.scenario == "class")
        mask = "task" if result.scenario == "class" else "all"
        (row,) = [r for r in data["rows"] if r["runs"] == [results.index(result)]]
        assert row["steps"] == [*result.matrix.rows[1:]]
        path = 100 * adapted_and_held_out(result.matrices[mask])
        assert [p[0] for p in row["trajectory"]] == [*result.matrix.rows]
        np.testing.assert_allclose([p[1:] for p in row["trajectory"]], path, atol=0.01)
    keys = {m["key"] for m in data["measures"]}
    assert {"zero_shot_retention", "task/zero_shot_retention"} <= keys
    text = (folder / "report.html").read_text()
    assert 'id="trajectory"' in text
    assert "score 0 by construction under the mask seen" in text


def test_a_page_without_anything_held_out_says_nothing_of_it(tmp_path: Path) -> None:
    data = data_of(put(tmp_path, one_run(2)))
    assert "held_out" not in data["runs"][0]
    assert 'id="trajectory"' not in (tmp_path / "report.html").read_text()


def long_run(steps: int, columns: int) -> dict[str, Any]:
    """The document of a run of many slices, with made-up numbers."""
    data = one_run(2)
    first, rng = data["experiences"][0], np.random.default_rng(0)
    data["experiences"] = [
        {**first, "identity": f"{j}", "name": f"name {j}", "task": j} for j in range(columns)
    ]
    data["order"] = list(range(columns))
    data["visits"] = [[k % columns, 10] for k in range(steps)]
    table = rng.uniform(size=(steps + 1, columns)).round(4).tolist()
    data["matrix"] = dict.fromkeys(data["matrix"], table)
    data["calibration"], data["class_accuracy"] = table, None
    return data


def test_a_thousand_slices_make_a_page_of_a_hundred_rows(tmp_path: Path) -> None:
    empty = len(write_report(read_runs(put(tmp_path / "few", one_run(2)))).read_bytes())
    data = data_of(put(tmp_path / "many", long_run(1000, 200)))
    (run,), row = data["runs"], data["rows"][0]
    assert len(run["matrix"]) == len(run["matrix"][0]) == len(run["after"]) == MOST
    assert run["after"][:2] == [0, 10]
    assert run["after"][-1] == row["steps"][-1] == data["most"] == 1000
    assert data["names"][0][-1] == "200: name 199"
    assert len(row["curve"]) == MOST
    size = len((tmp_path / "many" / "report.html").read_bytes())
    assert size - empty < 2e5  # bytes


def test_items_are_taken_evenly() -> None:
    assert evenly(5, 10) == [0, 1, 2, 3, 4]
    assert evenly(1, 10) == [0]
    assert evenly(0, 10) == []
    assert evenly(1001, 11) == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]
