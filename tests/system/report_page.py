"""What a reader sees of the page of a report, and does there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from cl_platform.report.leaderboard import Measure, Row, measures_of, rows_of, shown_axes
from cl_platform.report.runs import Runs
from tests.helpers.report_runs import own_matrix

if TYPE_CHECKING:
    from playwright.sync_api import Page


def visible_rows(page: Page) -> list[list[str]]:
    """The cells of the leaderboard's rows, as a reader sees them."""
    found: list[list[str]] = page.eval_on_selector_all(
        "#leaderboard tbody tr",
        "rows => rows.filter(r => r.offsetParent !== null)"
        ".map(r => [...r.cells].map(c => c.innerText.trim()))",
    )
    return found


def cells(row: Row, axes: Sequence[str], measures: Sequence[Measure]) -> list[str]:
    """What the leaderboard shows of a row."""
    accuracy, *others = [m.text(row.values[m.key]) for m in measures if m.listed]
    rest = [row.cell(axis) for axis in axes if axis != "strategy"]
    return [row.cell("strategy"), accuracy, *rest, str(len(row.indices)), *others]


def name(row: Row) -> str:
    return ", ".join(filter(None, (row.method, row.curriculum)))


def expected_rows(runs: Runs, rows: Sequence[Row]) -> list[list[str]]:
    axes = shown_axes([*rows_of(runs), *rows_of(runs, together=True)])
    return [cells(row, axes, measures_of(runs)) for row in rows]


def by_accuracy(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row.values["average_accuracy"].value)


def choose(page: Page, **filters: str) -> None:
    for filter_, option in filters.items():
        page.select_option(f"select[data-state={filter_}]", option)


def plotted(page: Page, chart: str) -> list[dict[str, Any]]:
    """The traces of a chart."""
    found: list[dict[str, Any]] = page.evaluate(
        "id => document.getElementById(id).data.map(t => ({name: t.name, mode: t.mode, "
        "x: [...t.x], y: [...t.y], z: t.z, dash: t.line && t.line.dash, text: t.text}))",
        chart,
    )
    return found


def saved(page: Page, selector: str) -> tuple[str, Path]:
    """Name and place of the file that a button downloads."""
    with page.expect_download() as download:
        page.click(selector)
    return download.value.suggested_filename, download.value.path()


def table(page: Page, chart: str) -> pd.DataFrame:
    """The data of a chart, as its CSV button gives them."""
    filename, path = saved(page, f"button[data-of={chart}][data-save=csv]")
    assert filename.endswith(f"{chart}.csv")
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def close(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows to compare: numbers to the digits that a page carries."""
    return [
        [pytest.approx(v, rel=1e-4, nan_ok=True) if isinstance(v, float) else v for v in row]
        for row in rows
    ]


def mean_matrix(runs: Runs, row: Row) -> np.ndarray:
    return np.mean([own_matrix(runs.results[i].to_json()) for i in row.indices], axis=0)


def hovered(page: Page, chart: str, row: int, column: int, shape: tuple[int, int]) -> str:
    """What a heat map says with the mouse on the middle of a cell."""
    area = page.locator(f"#{chart} .nsewdrag").first
    area.scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    box = area.bounding_box()
    assert box is not None
    x = box["x"] + (column + 0.5) / shape[1] * box["width"]
    y = box["y"] + (row + 0.5) / shape[0] * box["height"]
    page.mouse.move(x, y)
    label = page.locator(f"#{chart} .hoverlayer .hovertext")
    label.first.wait_for()
    return label.first.text_content() or ""


def shown_number(text: str) -> float:
    return float(text.removesuffix("%").split(":")[-1])


def background(page: Page, selector: str) -> str:
    return str(page.eval_on_selector(selector, "e => getComputedStyle(e).backgroundColor"))
