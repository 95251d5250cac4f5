"""What a report shows of budgets, and of what was measured of states."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from cl_platform.report.leaderboard import rows_of
from cl_platform.report.measured.budgets import sections
from cl_platform.report.measured.states import curves
from cl_platform.report.render import write_report
from cl_platform.report.runs import Runs, read_runs
from tests.helpers.report_runs import changed, one_run, put

MEASURED = {"active_units": [0.5, 0.4, 0.3, 0.2], "dead_units": [0.0, None, 0.1, 0.2]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run without a budget, and two seeds of one with: 60 samples allowed, 50 and 90 used."""
    data, out = one_run(plasticity=True), tmp_path_factory.mktemp("runs")
    documents = [changed(data, 0)]
    for seed, samples in enumerate((50, 90), 1):
        one = copy.deepcopy(changed(data, seed, seed=seed, strategy={"name": "er"}))
        one["config"]["budget"] = {"samples": 60, "memory_bytes": 2_000_000}
        one["cost"] |= {"samples": samples, "memory_bytes": 1_000_000}
        one["metrics"] |= {"average_accuracy": 0.5}
        one["plasticity"] = {name: [v and v * seed for v in row] for name, row in MEASURED.items()}
        documents.append(one)
    return read_runs(put(out, *documents))


def test_rows_beyond_a_budget_are_marked(runs: Runs) -> None:
    rows = {row.strategy: row for row in rows_of(runs)}
    assert rows["finetune"].over == ()
    assert rows["er"].over == ("samples",)
    page = write_report(runs).read_text()
    assert page.count("over budget: samples") == 1
    assert "Equal budgets" in page


def test_accuracy_by_what_was_used(runs: Runs) -> None:
    text = "".join(sections(rows_of(runs), runs.results))
    rows = [line.split("<td")[1:] for line in text.split("<tr>")[2:]]
    cells = [[cell.partition(">")[2].partition("<")[0] for cell in row] for row in rows]
    found = {row[-6]: row[-5:] for row in cells}
    # 50 % of accuracy for 70 samples in the mean, of 60; and for a megabyte of two.
    assert found["samples"] == ["60", "70", "117 (over)", "50.0", "0.714"]
    assert found["memory_bytes"] == ["2 MB", "1 MB", "50", "50.0", "50"]
    assert len(cells) == 2


def test_without_budgets_and_measures_there_are_no_sections(tmp_path: Path) -> None:
    put(tmp_path, one_run())
    page = write_report(read_runs(tmp_path)).read_text()
    for words in ("Equal budgets", "over budget", "Can it still learn?"):
        assert words not in page


def test_the_curves_of_what_was_measured(runs: Runs) -> None:
    lines = curves(rows_of(runs), runs.results)
    of_er = lines[lines["row"].str.startswith("er")].set_index(["measure", "experiences"])["value"]
    assert of_er["active_units"].tolist() == pytest.approx([0.75, 0.6, 0.45, 0.3])
    assert of_er["dead_units"].to_dict() == pytest.approx({0: 0.0, 2: 0.15, 3: 0.3})
    page = write_report(runs).read_text()
    assert "Can it still learn?" in page
    assert "active units" in page
