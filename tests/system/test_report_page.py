"""The page of a report, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from cl_platform.metrics.prediction_metrics import confusion
from cl_platform.metrics.ranking import rank
from cl_platform.report.leaderboard import measures_of, rows_of
from cl_platform.report.points import order_effects
from cl_platform.report.render import write_report
from cl_platform.report.runs import Runs, read_runs
from tests.helpers.report_runs import (
    own_matrix,
    real_runs,
)
from tests.system.browser import Visits
from tests.system.report_page import (
    background,
    by_accuracy,
    choose,
    close,
    expected_rows,
    hovered,
    mean_matrix,
    name,
    plotted,
    saved,
    shown_number,
    table,
    visible_rows,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Real runs with their report: two streams x two strategies x two curricula x three seeds."""
    out = tmp_path_factory.mktemp("report") / "out"
    real_runs(out)
    found = read_runs(out)
    write_report(found)
    return found


@pytest.fixture
def page(runs: Runs, visit: Visits) -> Page:
    return visit(runs.folder / "report.html")


# --- the page by itself


def test_a_page_that_is_not_by_itself_is_noticed(visit: Visits, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('one'); setTimeout(() => {throw Error('two')})</script>")
    visit(path).wait_for_timeout(50)
    path.write_text("<img src='http://127.0.0.1:9/three'>")
    visit(path).wait_for_timeout(50)
    said, visit.complaints = " ".join(visit.complaints), []
    assert all(word in said for word in ("one", "two", "three"))


def test_it_has_a_section_for_each_question(page: Page, runs: Runs) -> None:
    assert page.title() == page.text_content("h1") == runs.name
    assert page.locator("h2").all_text_contents() == [
        "Leaderboard",
        "Strategies, over everything else",
        "The chosen row",
        "Over 2 streams",
        "Differences from the best",
        "Does the order matter?",
        "Runs",
        "Definitions",
    ]
    for chart in ("curves", "transfer", "cost", "matrix", "classes"):
        assert page.locator(f"#{chart} svg.main-svg").first.is_visible()
    assert page.locator("div.drawn > svg").count() == 3  # ranks, profiles, orders
    text = (runs.folder / "report.html").read_text()
    assert "src=" not in text[: text.index("<script")]


def test_the_leaderboard_is_the_rows_in_the_order_of_accuracy(page: Page, runs: Runs) -> None:
    rows = rows_of(runs)
    assert len(rows) == 8
    shown = visible_rows(page)
    assert sorted(shown) == sorted(expected_rows(runs, rows))
    assert shown == expected_rows(runs, by_accuracy(rows))
    best = page.eval_on_selector_all(
        "#leaderboard tr.best:not([hidden])", "rows => rows.map(r => r.dataset.row)"
    )
    assert sorted(map(int, best)) == [i for i, row in enumerate(rows) if row.best]
    assert {rows[int(i)].stream for i in best} == {row.stream for row in rows}
    weights = page.eval_on_selector_all(
        "#leaderboard tbody tr:not([hidden])",
        "rows => rows.map(r => [r.className.includes('best'), "
        "getComputedStyle(r.querySelector('td.first')).fontWeight])",
    )
    assert {(bold, weight) for bold, weight in weights} <= {(True, "700"), (False, "400")}


def test_where_all_parameters_are_the_same_none_is_in_a_name(runs: Runs) -> None:
    assert {row.method for row in rows_of(runs)} == {"finetune", "er"}


# --- filters, order, selection


def test_filters_leave_what_they_say(page: Page, runs: Runs) -> None:
    each, together = rows_of(runs), rows_of(runs, together=True)
    streams = list(dict.fromkeys(row.stream for row in each))
    combinations = [
        ("", "", "reverse"),
        ("", "er", ""),
        (streams[1], "", "together"),
        (streams[1], "er", "together"),
        ("", "", "together"),
        (streams[0], "finetune", "as_given"),
    ]
    for stream, strategy, curriculum in combinations:
        choose(page, stream=stream, strategy=strategy, curriculum=curriculum)
        pool = together if curriculum == "together" else each
        rows = by_accuracy(
            [
                row
                for row in pool
                if stream in ("", row.stream)
                and strategy in ("", row.strategy)
                and (curriculum in ("", "together") or row.curriculum == curriculum)
            ]
        )
        assert visible_rows(page) == expected_rows(runs, rows), (stream, strategy, curriculum)
        assert page.text_content("#count") == f"{len(rows)} of {len(pool)} rows"
        lines = [t for t in plotted(page, "curves") if t["mode"] == "lines+markers"]
        drawn = sorted((t["name"], len(t["y"]), t["y"]) for t in lines)
        wanted = sorted((name(r), len(r.curve), [100 * p.value for p in r.curve]) for r in rows)
        assert [line[:2] for line in drawn] == [line[:2] for line in wanted]
        for line, values in zip(drawn, wanted, strict=True):
            assert line[2] == pytest.approx(values[2], rel=1e-4)
        cost = [v for t in plotted(page, "cost") if t["mode"] == "markers" for v in t["y"]]
        accuracies = [100 * row.values["average_accuracy"].value for row in rows]
        assert sorted(v for v in cost if v is not None) == pytest.approx(
            sorted(accuracies), rel=1e-4
        )
        ids = page.locator("#runs tbody button").all_text_contents()
        given = {runs.results[i].run_id for row in rows for i in row.indices}
        assert (len(ids), set(ids)) == (len(given), given)
        assert page.text_content("#chosen") == (
            f"{name(rows[0])} on {rows[0].stream}, mean of {len(rows[0].indices)} runs"
        )


def test_a_click_on_a_head_sorts_and_another_one_turns_it_round(page: Page, runs: Runs) -> None:
    rows, measures = rows_of(runs), [m for m in measures_of(runs) if m.listed]
    for measure in measures:
        if measure.key == "average_accuracy":
            continue  # sorted by it at first
        values = sorted(
            (row.values[measure.key].value for row in rows), reverse=measure.metric.sign > 0
        )
        ways = ["descending", "ascending"][:: measure.metric.sign]
        for way, wanted in zip(ways, (values, values[::-1]), strict=True):
            head = page.locator(f"#leaderboard th[data-key='{measure.key}']")
            head.click()
            assert head.get_attribute("aria-sort") == way
            place = list(page.locator("#leaderboard th").all_text_contents()).index(
                f"{measure.name} {measure.unit}"
            )
            shown = [row[place] for row in visible_rows(page)]
            by_text = {measure.text(row.values[measure.key]): row for row in rows}
            got = [by_text[text].values[measure.key].value for text in shown]
            assert [measure.shown(v) for v in got] == [measure.shown(v) for v in wanted]
    assert page.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1


def test_a_click_on_a_row_shows_its_matrix(page: Page, runs: Runs) -> None:
    for number, row in enumerate(rows_of(runs)):
        page.click(f"#row-{number}")
        assert page.text_content("#chosen") == f"{name(row)} on {row.stream}, mean of 3 runs"
        (trace,) = plotted(page, "matrix")
        assert np.array(trace["z"]) == pytest.approx(mean_matrix(runs, row), abs=0.0501)
        assert page.locator("#leaderboard tr.chosen").get_attribute("data-row") == str(number)


def test_the_mouse_on_a_cell_tells_its_number(page: Page, runs: Runs) -> None:
    rows = rows_of(runs)
    number = next(i for i, row in enumerate(rows) if row.strategy == "er" and len(row.curve) == 4)
    page.click(f"#row-{number}")
    matrix = mean_matrix(runs, rows[number])
    names = [e["name"] for e in runs.results[rows[number].indices[0]].to_json()["experiences"]]
    for i, j in [(0, 0), (1, 0), (2, 1), (4, 0), (4, 3)]:
        text = hovered(page, "matrix", i, j, matrix.shape)
        after = f"after {i}" if i else "untrained"
        assert text.startswith(f"{after}, {j + 1}: {names[j]}: ")
        assert shown_number(text) == pytest.approx(matrix[i, j], abs=0.0501)
    assert len(np.unique(matrix)) > 5, "cells differ"


def test_the_address_keeps_what_is_shown(page: Page, visit: Visits, runs: Runs) -> None:
    rows = rows_of(runs)
    chosen = next(i for i, row in enumerate(rows) if row.strategy == "er" and row.curriculum)
    choose(page, strategy="er", y2="forgetting")
    page.click("#leaderboard th[data-key=forgetting]")
    page.click(f"#row-{chosen}")
    before = visible_rows(page), page.text_content("#chosen")
    assert len(before[0]) == 4
    address = page.url
    page.reload()
    assert (visible_rows(page), page.text_content("#chosen")) == before
    assert page.input_value("select[data-state=y2]") == "forgetting"
    other = visit(runs.folder / "report.html", address[address.index("#") :], again=True)
    assert (visible_rows(other), other.text_content("#chosen")) == before


def test_an_address_of_another_report_opens(visit: Visits, runs: Runs) -> None:
    gone = ("stream=gone", "sort=gone", "row=99", "x1=gone&y2=gone", "hasOwnProperty=1")
    for i, fragment in enumerate(gone):  # each alone: one may hide what another one breaks
        page = visit(runs.folder / "report.html", f"#{fragment}", again=i > 0)
        assert len(visible_rows(page)) == 8, fragment
        assert page.locator("#runs tbody tr").count() == 24, fragment


# --- charts


def test_any_measure_can_be_put_against_any_other(page: Page, runs: Runs) -> None:
    rows = by_accuracy(rows_of(runs))
    for x, y in [("average_accuracy", "intransigence"), ("backward_transfer", "learning_accuracy")]:
        if x in rows[0].values and y in rows[0].values:
            choose(page, x1=x, y1=y)
            found = table(page, "transfer")
            assert found.iloc[:, 2].tolist() == pytest.approx(
                [100 * row.values[x].value for row in rows], rel=1e-4
            )
            assert found.iloc[:, 5].tolist() == pytest.approx(
                [100 * row.values[y].value for row in rows], rel=1e-4
            )


# --- exports


def test_every_figure_downloads_as_svg(page: Page) -> None:
    buttons = page.locator("button[data-save=svg]")
    charts = [buttons.nth(i).get_attribute("data-of") for i in range(buttons.count())]
    assert charts == [
        "pooled",
        "curves",
        "transfer",
        "cost",
        "matrix",
        "classes",
        "ranks",
        "profiles",
        "orders",
    ]
    for chart in charts:
        filename, path = saved(page, f"button[data-of={chart}][data-save=svg]")
        assert filename == f"out-{chart}.svg"
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("width", "0").removesuffix("pt")) > 200
        assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 4


def test_the_chosen_row_has_its_calibration_and_its_classes(page: Page, runs: Runs) -> None:
    rows = rows_of(runs)
    page.click("#row-0")
    mine = [runs.results[i] for i in rows[0].indices]
    found = table(page, "classes")
    expected = 100 * np.mean([result.class_accuracy[-1] for result in mine], axis=0)
    assert found["class"].tolist() == list(range(len(expected)))
    assert found["accuracy"].tolist() == pytest.approx(expected.tolist(), abs=0.0501)
    choose(page, matrix="calibration")
    errors = 100 * np.mean([result.calibration.values for result in mine], axis=0)
    assert np.isnan(errors[0]).all(), "nothing could be predicted under the mask seen"
    shown = table(page, "matrix").iloc[:, 1:].to_numpy(dtype=float)
    assert shown == pytest.approx(errors, abs=0.11, nan_ok=True)
    assert not np.allclose(shown[1:], 100 * mean_matrix(runs, rows[0])[1:] / 100)


def test_every_chart_downloads_as_csv(page: Page, runs: Runs) -> None:
    choose(page, strategy="er", curriculum="reverse")
    rows = by_accuracy(
        [r for r in rows_of(runs) if (r.strategy, r.curriculum) == ("er", "reverse")]
    )
    curves = table(page, "curves")
    assert curves.columns.tolist() == ["stream", "row", "experiences", "accuracy", "low", "high"]
    wanted = [
        [row.stream, name(row), i, 100 * p.value, 100 * p.low, 100 * p.high]
        for row in rows
        for i, p in enumerate(row.curve, 1)
    ]
    assert sorted(curves.values.tolist()) == close(sorted(wanted))
    for chart, x, y in (
        ("transfer", "forgetting", "task/forward_transfer"),
        ("cost", "cost.train_seconds", "average_accuracy"),
    ):
        measures = {m.key: m for m in measures_of(runs)}
        wanted = [
            [row.stream, name(row)]
            + [
                measures[key].scale * v
                for key in (x, y)
                for v in (row.values[key].value, row.values[key].low, row.values[key].high)
            ]
            for row in rows
        ]
        assert table(page, chart).values.tolist() == close(wanted), chart
    matrix = table(page, "matrix").iloc[:, 1:].to_numpy()
    assert matrix == pytest.approx(mean_matrix(runs, rows[0]), abs=0.0501)


def test_drawn_figures_have_their_data_as_csv(page: Page, runs: Runs) -> None:
    orders = table(page, "orders")
    effects = order_effects(runs.frame)
    given = {(e.point, order): v for e in effects for order, v in e.means.items()}
    found = orders.set_index(["row", "order"])["accuracy"].to_dict()
    assert len(found) == len(orders) == 8
    assert found == pytest.approx(given)
    ranks = table(page, "ranks")
    by_stream: dict[str, dict[str, float]] = {}
    for row in rows_of(runs, together=True):
        by_stream.setdefault(row.method, {})[row.stream] = row.values["average_accuracy"].value
    ranking = rank({m: list(values.values()) for m, values in by_stream.items()})
    assert ranks["strategy"].tolist() == list(ranking.names)
    assert ranks["rank"].tolist() == pytest.approx(ranking.ranks.tolist(), abs=0.005)
    assert ranks["interquartile mean"].dtype == float, "numbers, not text with an interval"


def test_the_leaderboard_downloads_as_it_is_shown(page: Page, runs: Runs) -> None:
    choose(page, curriculum="reverse")
    page.click("#leaderboard th[data-key=forgetting]")
    filename, path = saved(page, "#save-leaderboard")
    assert filename == "out-leaderboard.csv"
    found = pd.read_csv(path)
    rows = [row for row in rows_of(runs) if row.curriculum == "reverse"]
    rows.sort(key=lambda row: row.values["forgetting"].value)
    axes = ["strategy", "stream", "curriculum"]
    assert found.columns[:3].tolist() == axes
    assert found[axes].values.tolist() == [[row.cell(axis) for axis in axes] for row in rows]
    assert found["runs"].tolist() == [3] * 4
    place = len(axes) + 1
    for measure in measures_of(runs):
        values = [row.values[measure.key] for row in rows]
        assert measure.name in found.columns[place]
        for offset, part in enumerate(("value", "low", "high")):
            wanted = [measure.scale * getattr(v, part) for v in values]
            got = found.iloc[:, place + offset].tolist()
            assert got == pytest.approx(wanted, rel=1e-4, nan_ok=True), measure.key
        place += 3
    assert place == len(found.columns)


# --- a run


def test_a_run_is_a_click_away(visit: Visits, runs: Runs) -> None:
    page = visit(runs.folder / "report.html", may=["clipboard-read", "clipboard-write"])
    ids = page.locator("#runs tbody button").all_text_contents()
    assert sorted(ids) == sorted(result.run_id for result in runs.results)
    for data in [result.to_json() for result in runs.results[::7]]:
        page.click(f"#runs button:text-is('{data['run_id']}')")
        assert page.locator("dialog#run").is_visible()
        config = json.loads((runs.folder / "runs" / data["run_id"] / "config.json").read_text())
        assert json.loads(page.text_content("#run-config") or "") == config == data["config"]
        command = page.text_content("#run-command") or ""
        assert command.startswith("clp run --stream blobs ")
        assert f"--strategy {data['config']['strategy']['name']}" in command
        page.click("#copy")
        assert page.evaluate("navigator.clipboard.readText()") == command
        (trace,) = plotted(page, "run-matrix")
        assert np.array(trace["z"]) == pytest.approx(own_matrix(data), abs=0.0501)
        text = hovered(page, "run-matrix", 1, 0, own_matrix(data).shape)
        assert shown_number(text) == pytest.approx(own_matrix(data)[1, 0], abs=0.0501)
        page.click("#close")
        assert not page.locator("dialog#run").is_visible()


def test_a_run_shows_which_classes_it_took_for_others(visit: Visits, runs: Runs) -> None:
    page = visit(runs.folder / "report.html", viewport={"width": 390, "height": 800})
    result = runs.results[0]
    page.click(f"#runs button:text-is('{result.run_id}')")
    last = len(result.matrix.values) - 1
    for row in (last, 0):
        page.select_option("#run-row", str(row))
        (trace,) = plotted(page, "run-confusion")
        counts = confusion(result.predictions()[row])
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
        assert np.array(trace["z"], float).ravel() == pytest.approx(
            np.where(counts.sum(1, keepdims=True), shares, np.nan).ravel(), nan_ok=True
        )
    page.select_option("#run-row", str(last))
    drawn = "#run-confusion .plotly .cartesianlayer .hm"
    box = page.eval_on_selector(drawn, "e => e.getBoundingClientRect().toJSON()")
    assert box["width"] > 150
    assert box["right"] <= 390
    page.click("#close")


# --- where it is looked at


def test_it_is_dark_where_people_want_that(visit: Visits, runs: Runs) -> None:
    page = visit(runs.folder / "report.html", color_scheme="dark")
    for scheme, light in (("dark", False), ("light", True)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_timeout(100)
        body = background(page, "body")
        assert (sum(map(int, body[4:-1].split(", "))) > 600) is light
        paper, ink = page.evaluate(
            "[document.getElementById('curves').layout.paper_bgcolor, "
            "document.getElementById('curves').layout.font.color]"
        )
        assert (int(paper[1:3], 16) > 200) is light
        assert (int(ink[1:3], 16) < 100) is light


def test_a_narrow_window_scrolls_down_only(visit: Visits, runs: Runs) -> None:
    phone = {"width": 390, "height": 800}
    page = visit(runs.folder / "report.html", viewport=phone, has_touch=True, is_mobile=True)
    stays_within(page, 390)
    page.set_viewport_size({"width": 768, "height": 800})
    page.reload()
    stays_within(page, 768)


def stays_within(page: Page, width: int) -> None:
    across = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.evaluate(across) == [width, width]
    accuracy = page.eval_on_selector_all(
        "#leaderboard td.first, #leaderboard th:nth-child(2)",
        "all => all.map(e => e.getBoundingClientRect().right)",
    )
    assert max(accuracy) < width, "to be read without scrolling the table"
    boxes = page.eval_on_selector_all(
        "figure, nav, select, button, h2", "all => all.map(e => e.getBoundingClientRect().right)"
    )
    assert max(boxes) <= width
    charts = page.eval_on_selector_all(
        "div.chart", "all => all.map(e => [e.clientWidth, e.scrollWidth])"
    )
    assert all(scroll <= client for client, scroll in charts)
    page.tap("#runs tbody button >> nth=0")
    right = page.eval_on_selector("#run", "e => e.getBoundingClientRect().right")
    assert 0 < right <= width
    assert page.evaluate(across) == [width, width]


@pytest.fixture
def printed(page: Page) -> Page:
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(200)
    return page


def test_print_has_the_sections_all_of_them_open_and_nothing_to_click(
    printed: Page, runs: Runs
) -> None:
    for kind in ("nav", "button:not(td button)", "select", "dialog"):
        assert printed.locator(kind).count() > 0
        assert printed.locator(f"{kind} >> visible=true").count() == 0, kind
    assert printed.locator("h2 >> visible=true").count() == 8
    assert printed.locator(".main-svg >> visible=true").count() >= 4
    assert len(visible_rows(printed)) == 8
    assert background(printed, "body") == "rgb(255, 255, 255)"
    assert printed.evaluate("document.getElementById('cost').layout.paper_bgcolor") == "#fff"
    shown = printed.inner_text("#runs")
    assert all(result.run_id in shown for result in runs.results)
    folded = printed.locator("details:not(dialog details) table")
    assert folded.count() == 2
    for i in range(folded.count()):
        assert folded.nth(i).is_visible()
    assert printed.locator("label >> visible=true").count() == 0, "a label without its choice"
