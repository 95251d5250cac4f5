"""What a notebook shows of a result: all numbers, in HTML that stands by itself."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import cl_platform as clp
from cl_platform import Result
from cl_platform.results.notebook import DARK, VIRIDIS
from tests.helpers.report_runs import HOSTILE, MODEL, one_run


class Page(HTMLParser):
    """The elements, and the text of the cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def result() -> Result:
    return Result.from_json(one_run(3))


def test_all_accuracies_and_metrics_are_shown(result: Result) -> None:
    page = Page(result._repr_html_())
    accuracies = [f"{100 * v:.1f}" for v in result.matrix.values.flatten()]
    assert [cell for cell in page.cells if "." in cell][: len(accuracies)] == accuracies
    for name in ("average_accuracy", "forgetting"):
        at = page.cells.index(name)
        expected = [result.metrics[name], *(result.metrics[f"{m}/{name}"] for m in ("task", "all"))]
        assert page.cells[at + 1 : at + 4] == [f"{v:.4f}" for v in expected]
    assert page.attributes <= {"style", "title"}  # no script, and nothing to load


def test_many_experiences_are_a_picture_without_numbers() -> None:
    stream = {"name": "blobs", "experiences": 21, "samples_per_class": 5, "dimensions": 42}
    result = clp.run(stream, "finetune", model=MODEL, out=None)
    page = Page(result._repr_html_())
    assert sum("." in cell for cell in page.cells) < 60  # the metrics
    assert page.cells.count("") >= 22 * 21


def test_names_from_outside_are_text(result: Result) -> None:
    document = result.to_json()
    document["stream"] = HOSTILE[0]
    for e, name in zip(document["experiences"], HOSTILE, strict=True):
        e["name"] = name
    page = Page(Result.from_json(document)._repr_html_())
    assert not page.tags & {"script", "img"}
    assert page.attributes <= {"style", "title"}


def test_numbers_can_be_read_on_every_colour() -> None:
    for level, colour in enumerate(VIRIDIS):
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
        contrast = 1.05 / (luminance + 0.05) if level < DARK else (luminance + 0.05) / 0.05
        assert contrast >= 3.5, level
