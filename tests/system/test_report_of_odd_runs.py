"""The page of a report of runs with odd names or numbers, of a tuning, of many runs, and of runs to come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from cl_platform.report.leaderboard import rows_of
from cl_platform.report.render import write_report
from cl_platform.report.runs import Runs, read_runs
from sweeps.record import Phase, write_sweep
from tests.helpers.report_runs import HOSTILE, changed, many_runs, one_run, put
from tests.helpers.sweep_runs import Tuned, planned
from tests.system.browser import Visits
from tests.system.report_page import (
    by_accuracy,
    choose,
    expected_rows,
    hovered,
    plotted,
    saved,
    table,
    visible_rows,
)

LONG = pytest.mark.filterwarnings("ignore:constrained_layout not applied")


def test_a_filter_that_leaves_nothing_leaves_no_matrix(visit: Visits, tmp_path: Path) -> None:
    model = one_run()
    one = changed(model, 1, strategy={"name": "er"}, curriculum={"name": "as_given"})
    two = changed(model, 2, strategy={"name": "si"}, curriculum={"name": "reverse"})
    page = visit(write_report(read_runs(put(tmp_path, one, two))))
    choose(page, strategy="er", curriculum="reverse")
    assert visible_rows(page) == []
    assert page.text_content("#count") == "0 of 2 rows"
    assert page.locator("#runs tbody tr").count() == 0
    shown = page.text_content("#chosen") or ""
    assert "er" not in shown
    assert "si" not in shown


def test_rows_without_a_number_stand_last_either_way(visit: Visits, tmp_path: Path) -> None:
    documents = []
    for i, forgetting in enumerate([0.3, None, 0.1]):
        data = changed(one_run(), i, strategy={"name": ("er", "si", "ewc")[i]})
        data["metrics"]["forgetting"] = forgetting
        documents.append(data)
    page = visit(write_report(read_runs(put(tmp_path, *documents))))
    orders = []
    for _ in range(2):
        page.click("#leaderboard th[data-key=forgetting]")
        orders.append([row[0] for row in visible_rows(page)])
    assert orders == [["ewc", "er", "si"], ["er", "ewc", "si"]]


def test_the_front_joins_what_none_is_both_cheaper_and_better_than(
    visit: Visits, tmp_path: Path
) -> None:
    seconds, forgetting = [1.0, 2.0, 3.0, 4.0], [0.5, 0.6, 0.2, 0.3]
    documents = []
    for i, names in enumerate(("er", "si", "ewc", "lwf")):
        data = changed(one_run(), i, strategy={"name": names})
        data["cost"]["train_seconds"] = seconds[i]
        data["metrics"] |= {"forgetting": forgetting[i], "average_accuracy": 1 - forgetting[i]}
        documents.append(data)
    page = visit(write_report(read_runs(put(tmp_path, *documents))))
    for measure, front in (("average_accuracy", [50, 80]), ("forgetting", [50, 20])):
        choose(page, y2=measure)
        lines = [t for t in plotted(page, "cost") if t["mode"] == "lines"]
        assert [(t["x"], t["y"]) for t in lines] == [([1, 3], pytest.approx(front))], measure


def test_settings_that_only_some_runs_have_are_shown_of_those(
    visit: Visits, tmp_path: Path
) -> None:
    model = one_run()
    configs = [
        {"schedule": {"name": "steplr", "interval": "epoch", "step_size": 1}},
        {"strategy": {"name": "er", "memory_size": None, "list": [1, [2, None]], "empty": {}}},
        {"optimizer": {"name": "adam", "lr": 1e-5, "reset": True, "betas": [0.9, 0.99]}},
    ]
    documents = [changed(model, i, **config) for i, config in enumerate(configs)]
    page = visit(write_report(read_runs(put(tmp_path, *documents))))
    for data in documents:
        page.click(f"#runs button:text-is('{data['run_id']}')")
        assert json.loads(page.text_content("#run-config") or "") == data["config"]
        page.click("#close")


def test_a_tuned_sweep_shows_its_trials_and_what_failed(visit: Visits, tmp_path: Path) -> None:
    tuned = Tuned({"lr": [0.01, 0.1, 0.5]}, lambda run: run.config.optimizer.lr)
    final = planned({"seed": [1, 2]})
    phase = Phase("final", final, errors={final[1].run_id: "it broke"}, done={final[0].run_id})
    put(tmp_path, {**one_run(), "run_id": final[0].run_id})
    write_sweep(tmp_path, tuned.spec, [tuned.phase, phase], "done", chosen=tuned.choose())
    page = visit(write_report(read_runs(tmp_path)), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    heads = page.locator("h2").all_text_contents()
    assert heads[:3] == ["Failed runs", "Leaderboard", "Chosen on validation data"]
    assert page.inner_text("section.failed li") == "seed 2: it broke"
    red, green, blue = map(int, page.eval_on_selector(
        "section.failed h2", "e => getComputedStyle(e).color")[4:-1].split(","))  # fmt: skip
    assert red > 2 * max(green, blue)
    assert "lr = 0.5 is the largest of 3 values" in page.inner_text("p.warn")
    lines = page.evaluate(
        "document.getElementById('trials').data[0].dimensions.map(d => [d.label, [...d.values]])"
    )
    assert lines == [["lr", [0, 1, 2]], ["accuracy %", [1, 10, 50]]]
    assert page.locator("#trials .y-axis").count() == 2
    tried = "#tried tbody tr td:nth-child({})"
    assert page.inner_text(f"{tried.format(3)} >> nth=0") == "0.5", "the best first"
    for column, wanted in ((3, "0.01"), (3, "0.5"), (2, "50.0"), (2, "1.0")):
        page.click(f"#tried th:nth-child({column})")
        assert page.inner_text(f"{tried.format(column)} >> nth=0") == wanted
    found = table(page, "trials")
    assert found["accuracy %"].tolist() == [1, 10, 50]
    assert found["lr"].tolist() == [0.01, 0.1, 0.5]


def test_long_names_leave_room_for_the_figure(tmp_path: Path) -> None:
    model = one_run()
    names = [f"scheduled-replay memory_size=1000 schedule=equal 0.05 number {i}" for i in range(2)]
    for i, (stream, strategy) in enumerate(product(("blobs", "others"), names)):
        put(tmp_path, changed(model, i, stream={"name": stream}, strategy={"name": strategy}))
    assert write_report(read_runs(tmp_path)).exists()  # a warning of matplotlib is an error here


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs whose stream, strategy, experiences and curriculum have every name that hurts, with their
    report."""
    model, documents = one_run(), []
    for i, (stream, strategy, seed) in enumerate(product(HOSTILE, HOSTILE, (0, 1))):
        data = changed(model, i, seed=seed, stream={"name": stream}, strategy={"name": strategy})
        data["config"]["curriculum"] = {"name": HOSTILE[i // 2 % 3], "level": "experiences"}
        data["stream"] = stream
        for experience, odd in zip(data["experiences"], HOSTILE, strict=True):
            experience["name"] = odd
        documents.append(data)
    out = tmp_path_factory.mktemp("hostile") / HOSTILE[2].replace("/", "")
    found = read_runs(put(out, *documents))
    write_report(found)
    return found


@LONG
def test_hostile_names_are_text(visit: Visits, hostile: Runs) -> None:
    page = visit(hostile.folder / "report.html")
    assert page.title() == page.text_content("h1") == hostile.name
    assert page.locator("img, b:text-is('n')").count() == 0
    shown = visible_rows(page)
    assert sorted([row[0], *row[2:4]] for row in shown) == sorted(
        [row.strategy, row.stream, row.curriculum] for row in rows_of(hostile)
    )
    for wanted in HOSTILE:
        choose(page, stream=wanted, strategy=wanted)
        assert [[row[0], row[2]] for row in visible_rows(page)] == [[wanted, wanted]]
        assert page.locator("#runs tbody tr").count() == 2
    page.click("#runs tbody button >> nth=0")
    assert json.loads(page.text_content("#run-config") or "")["stream"]["name"] == HOSTILE[2]


@LONG
def test_hostile_names_are_text_in_charts(visit: Visits, hostile: Runs) -> None:
    page = visit(hostile.folder / "report.html")
    legend = page.locator("#transfer .legendtext").all_text_contents()
    assert {text for row in rows_of(hostile) for text in (row.method, row.stream)} <= set(legend)
    above = page.locator("#curves .annotation-text").all_text_contents()
    assert sorted(above) == sorted(HOSTILE)
    ticks = page.locator("#matrix .xtick text").all_text_contents()
    assert ticks == [f"{j}: {odd}" for j, odd in enumerate(HOSTILE, 1)]
    text = hovered(page, "matrix", 0, 0, (4, 3))
    assert text.startswith(f"untrained, 1: {HOSTILE[0]}: ")


@LONG
def test_hostile_names_come_out_of_exports_as_they_went_in(visit: Visits, hostile: Runs) -> None:
    page = visit(hostile.folder / "report.html")
    rows = rows_of(hostile)
    assert sorted(table(page, "cost")["stream"]) == sorted(row.stream for row in rows)
    _, path = saved(page, "#save-leaderboard")
    assert sorted(pd.read_csv(path)["strategy"]) == sorted(row.strategy for row in rows)
    for chart in ("curves", "transfer", "ranks"):
        _, path = saved(page, f"button[data-of={chart}][data-save=svg]")
        ElementTree.parse(path)


def test_a_metric_without_a_direction_has_no_line_of_best_points(
    visit: Visits, tmp_path: Path
) -> None:
    model = one_run()
    for i, strategy in enumerate(("er", "si", "ewc")):
        data = changed(model, i, strategy={"name": strategy})
        data["metrics"]["of_another"] = (0.3, 0.1, 0.2)[i]
        put(tmp_path, data)
    page = visit(write_report(read_runs(tmp_path)))
    assert "dot" in [trace["dash"] for trace in plotted(page, "cost")]
    choose(page, y2="of_another")
    assert "dot" not in [trace["dash"] for trace in plotted(page, "cost")]
    assert page.locator("#cost .ytitle").text_content() == "of another"
    page.click("#leaderboard th[data-key=of_another]")
    assert [row[0] for row in visible_rows(page)] == ["si", "ewc", "er"]


def test_hundreds_of_runs_are_one_page(visit: Visits, tmp_path: Path) -> None:
    runs = read_runs(put(tmp_path, *many_runs(160)))
    path = write_report(runs)
    assert path.stat().st_size < 5e6 + 160 * 5000
    page = visit(path)
    together = rows_of(runs, together=True)
    assert visible_rows(page) == expected_rows(runs, by_accuracy(together))
    assert page.locator("#runs tbody tr").count() == 100
    page.click("#more")
    assert page.locator("#runs tbody tr").count() == 160
    choose(page, curriculum="", strategy="er")
    assert len(visible_rows(page)) == 8
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert page.evaluate("scrollY") > 900
    assert page.locator("h2:text-is('Definitions')").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_an_open_page_follows_what_is_written_and_keeps_what_was_chosen(
    visit: Visits, tmp_path: Path
) -> None:
    model = one_run()

    def run(number: int, strategy: str, accuracy: float, seed: int = 0) -> Mapping[str, Any]:
        data = changed(model, number, strategy={"name": strategy}, seed=seed)
        data["metrics"]["average_accuracy"] = accuracy
        return data

    def follows(*documents: Mapping[str, Any]) -> None:
        put(tmp_path, *documents)
        write_report(read_runs(tmp_path), reload=1)

    put(tmp_path, run(1, "er", 0.5), run(2, "si", 0.4))
    page = visit(write_report(read_runs(tmp_path), reload=1))
    choose(page, strategy="si")
    follows(run(3, "si", 0.4, seed=1), run(4, "ewc", 0.3))
    page.wait_for_function("document.querySelectorAll('#leaderboard tbody tr').length == 3")
    assert [[row[0], row[2]] for row in visible_rows(page)] == [["si", "2"]]
    assert page.locator("#runs tbody tr").count() == 2

    choose(page, strategy="")
    page.click("#leaderboard tbody tr:has-text('si')")
    page.wait_for_function("document.getElementById('chosen').textContent.startsWith('si')")
    follows(run(5, "joint", 0.9))
    page.wait_for_function("document.querySelectorAll('#leaderboard tbody tr').length == 4")
    assert (page.text_content("#leaderboard tr.chosen td") or "") == "si"


def test_a_single_experience_has_nothing_to_forget(visit: Visits, tmp_path: Path) -> None:
    page = visit(write_report(read_runs(put(tmp_path, one_run(1)))))
    assert page.locator("#leaderboard tbody tr").count() == 1
    assert "forgetting" not in page.locator("#leaderboard thead").inner_text()
