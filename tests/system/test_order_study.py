"""The study of orders on a real sweep: its runs, its numbers, the console and the page."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from math import factorial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.report.orders.study import verdict
from cl_platform.storage.sealed import SWEEP
from cl_platform.tracking.console import new_console
from streams.curricula import designer
from streams.curricula.designed import Designer
from sweeps import console as show
from sweeps.api import Sweep, sweep
from sweeps.executor import tree
from tests.helpers.report_runs import reseal
from tests.report.test_orders import FOUR, only, without_nan
from tests.system.browser import Visits

if TYPE_CHECKING:
    from playwright.sync_api import Page

ER = {"name": "er", "memory_size": 40}
BASE = {
    "stream": {"name": "split-digits", "experiences": 4, "samples": 60},
    "model": {"name": "mlp", "hidden": [20]},
}
EUCLIDEAN = {"name": "designer", "distance": "euclidean"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """All 24 orders of four experiences, two strategies, two seeds, on a Ray of its own."""
    return sweep(
        {
            "name": "orders",
            "base": BASE,
            "axes": {"strategy": ["finetune", ER], "curriculum": ["all"], "seed": [0, 1]},
            "scored_by": ["designer", EUCLIDEAN],
        },
        tmp_path_factory.mktemp("study") / "out",
    )


def test_every_state_of_the_tree_is_trained_once(real: Sweep) -> None:
    assert real.complete
    (phase,) = real.phases
    in_tree = len(tree.states(phase.runs))
    assert in_tree == 2 * 2 * (4 + 12 + 24 + 24)
    assert phase.tally.trained == phase.tally.distinct == in_tree
    assert (phase.tally.done, phase.tally.experiences) == (96, 384)


def test_its_runs_are_equal_bit_by_bit_to_runs_made_alone(real: Sweep) -> None:
    frame = real.results().set_index("run_id")
    runs = list(real.phases[0].runs)
    for i in np.random.default_rng(0).choice(len(runs), 4, replace=False):
        alone = execute(make_plan(runs[i].config), None)
        row = frame.loc[runs[i].run_id]
        assert row["order"] == tuple(alone.order)
        for name, value in alone.metrics.items():
            assert row[name] == value or (np.isnan(row[name]) and np.isnan(value))


def test_its_frame_has_the_scores_of_the_designer(real: Sweep) -> None:
    frame = real.results()
    stream = Planner().stream(real.phases[0].runs[0].config).without_test_data()
    for name, curriculum in (
        ("designer", Designer()),
        ("designer distance=euclidean", Designer(distance="euclidean")),
    ):
        expected = designer.scores(curriculum.distances(stream), np.array(frame["order"].tolist()))
        assert frame[f"score.{name}"].tolist() == expected.tolist()
        assert frame[f"score.{name}"].nunique() > 10
    written = pd.read_parquet(real.path / "runs.parquet")
    assert len(written) == 96
    for column in ("score.designer", "score.designer distance=euclidean", "average_accuracy"):
        assert written[column].tolist() == frame[column].tolist()


def test_its_study_is_of_its_results(real: Sweep) -> None:
    found = only(real.studies())
    frame = real.results()
    assert found.stream == "split-digits"
    assert found.items == ["0 1 2", "3 4 5", "6 7", "8 9"]
    assert [p.point for p in found.points] == ["er memory_size=40", "finetune"]
    assert list(found.scores) == ["designer", "designer distance=euclidean"]
    for point in found.points:
        mine = frame[frame["axis.strategy"] == point.point]
        means = mine.groupby("order")["average_accuracy"].mean()
        assert [means[tuple(o)] for o in point.orders] == pytest.approx(point.means.tolist())
        assert sorted(map(tuple, point.orders.tolist())) == FOUR
        x = [dict(zip(mine["order"], mine["score.designer"], strict=True))[o] for o in means.index]
        rho = stats.spearmanr(x, means).statistic
        assert point.predictions[0].correlation.rho == pytest.approx(rho)
    assert [p.point for p in only(real.studies()).points] == [p.point for p in found.points]
    again = only(real.studies())
    assert [p.predictions for p in again.points] == [p.predictions for p in found.points]


def shown(found: Sweep) -> list[str]:
    console = new_console(file=io.StringIO(), width=80, color_system=None)
    show.outcome(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_on_the_console_every_line_has_its_place(real: Sweep) -> None:
    lines = shown(real)
    assert all(len(line) <= 80 for line in lines[:-1])  # the last one is the path, to be copied
    text = " ".join(" ".join(lines).split())
    assert "split-digits: 24 orders" in text
    assert "worst best by order by seed by both rho 1 rho 2" in text
    for i, score in enumerate(("designer", "designer distance=euclidean"), 1):
        assert f"rho {i}: {verdict(only(real.studies()), score)}" in text
    assert "256 experiences trained, 128 saved by sharing" in text


def test_on_the_console_long_names_and_many_scores_are_folded(real: Sweep, tmp_path: Path) -> None:
    ids = [run.run_id for run in real.phases[0].runs]
    long = "designer distance=euclidean encoder=torchvision samples=1000"
    scores = {f"{long} [bold]{i}": {r: float(i + int(r, 16) % 7) for r in ids} for i in range(4)}
    shutil.copy(real.path / "sweep.json", tmp_path)
    reseal(tmp_path / "sweep.json", SWEEP, lambda record: record.update(scores=scores))
    (tmp_path / "runs").symlink_to(real.path / "runs")
    lines = shown(replace(real, path=tmp_path))
    assert all(len(line) <= 80 for line in lines[:-1])
    text = " ".join(" ".join(lines).split())
    assert text.count(f"{long} [bold]") == 4, "no name is markup"
    numbers = next(line for line in lines if line.startswith("finetune") and "%" in line)
    assert len(re.findall(r"-?\d\.\d\d\b", numbers)) == 4


def table_after(page: Page, selector: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table, as a reader sees them."""
    head = page.locator(f"{selector} >> thead th").all_text_contents()
    rows = page.locator(f"{selector} >> tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return head, rows


def test_its_report_opens_in_a_browser_with_its_tables(real: Sweep, visit: Visits) -> None:
    page = visit(real.path / "report.html")
    assert page.locator("h1, h2").all_text_contents() == [
        "orders",
        "Leaderboard",
        "Strategies, over everything else",
        "The chosen row",
        "Differences from the best",
        "Orders of split-digits",
        "Was it foreseen? split-digits",
        "Runs",
        "Specification",
        "Definitions",
    ]
    assert page.locator("div.drawn > svg").count() == 4
    assert all(page.locator("div.drawn > svg").nth(i).is_visible() for i in range(4))
    assert page.locator("#leaderboard tbody tr >> visible=true").count() == 2  # orders together
    head, orders = table_after(page, "div.wide:below(#orders-split-digits) >> nth=0")
    assert head[2:] == ["best order", "median order", "worst order", "worth of picking"]
    assert [row[0] for row in orders] == ["er memory_size=40", "finetune"]
    points = {p.point: p for p in only(real.studies()).points}
    for row in orders:
        point = points[row[0]]
        assert row[2].startswith(f"{' '.join(map(str, point.best.order))}: ")
    _, foreseen = table_after(page, "div.wide:below(#foreseen-split-digits) >> nth=0")
    assert len(foreseen) == 2 * 2
    for row in foreseen:
        wanted = next(
            p
            for p in points[row[1]].predictions
            if p.score == row[0] and p.outcome == "average_accuracy"
        )
        assert row[2] == f"{wanted.correlation.rho:.2f}"
    assert factorial(4) == len(points["finetune"].orders)
    assert without_nan(page.inner_text("body"))


def test_its_figures_of_orders_download_with_their_numbers(real: Sweep, visit: Visits) -> None:
    page = visit(real.path / "report.html")
    (found,) = real.studies()
    means = {
        (p.point, " ".join(map(str, order))): (mean, p.scores["designer"][i])
        for p in found.points
        for i, (order, mean) in enumerate(zip(p.orders.tolist(), p.means, strict=True))
    }
    for figure in ("orders", "foreseen"):
        with page.expect_download() as download:
            page.click(f"button[data-of={figure}-split-digits][data-save=csv]")
        saved = pd.read_csv(download.value.path()).set_index(["point", "order"])
        assert len(saved) == len(means) == 48
        for (point, order), (mean, score) in means.items():
            row = saved.loc[(point, order)]
            assert row["accuracy"] == pytest.approx(mean)
            assert row["score of designer"] == pytest.approx(score)
    with page.expect_download() as download:
        page.click("button[data-of=places-split-digits][data-save=csv]")
    places = pd.read_csv(download.value.path())
    for point in found.points:
        mine = places[places["point"] == point.point]["accuracy"].to_numpy().reshape(4, 4)
        assert mine == pytest.approx(point.positions)
    for figure in ("orders", "places", "pairs", "foreseen"):
        with page.expect_download() as download:
            page.click(f"button[data-of={figure}-split-digits][data-save=svg]")
        ElementTree.parse(download.value.path())
