"""What Python prints of results, and the names of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

import cl_platform as clp
from cl_platform import Result
from cl_platform.results.notebook import ZERO, ZERO_NOTE
from tests.helpers.report_runs import MODEL, STREAMS, one_run


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("out")
    return clp.run(STREAMS[0], "finetune", model=MODEL, out=out, keep="none")


def test_a_result_is_five_lines(result: Result) -> None:
    first, about, numbers, means, place = str(result).splitlines()
    assert first == f"finetune on {result.stream}"
    assert f"run {result.run_id}" in about
    assert f"average accuracy {result.metrics['average_accuracy']:.4f}" in numbers
    assert means.split(": ")[1].split()[-1] == f"{100 * result.matrix.values[-1].mean():.1f}"
    assert place == f"in {result.path}"
    assert repr(result) == str(result)


def test_a_long_stream_is_five_lines_too() -> None:
    text = str(Result.from_json(one_run(20)))
    assert len(text.splitlines()) == 5
    assert " ... " in text
    assert max(map(len, text.splitlines())) < 130


def test_a_path_may_be_text(result: Result) -> None:
    again = Result.load(str(result.path))
    assert again is not None
    assert (again.run_id, again.path) == (result.run_id, result.path)


def test_a_notebook_shows_figures(result: Result) -> None:
    for figure in (result.plot_matrix(), result.plot_accuracy(), result.plot_forgetting()):
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_package_lists_its_names() -> None:
    listed = dir(clp)
    assert {*clp.__all__} < {*listed}
    assert all(getattr(clp, name, None) is not None for name in listed)


def test_a_transfer_that_can_only_be_zero_says_so(result: Result) -> None:
    html = result._repr_html_()
    assert result.metrics["forward_transfer"] == 0
    assert html.count(f">{ZERO}</td>") == 1
    assert ZERO_NOTE in html
    chosen = clp.run({**STREAMS[0], "scenario": "task"}, "finetune", model=MODEL, out=None)
    masks = [mask for mask in chosen.matrices if mask == "seen"]
    assert chosen._repr_html_().count(f">{ZERO}</td>") == len(masks)


def test_the_place_of_a_result_without_a_folder() -> None:
    assert "in no folder" in str(Result.from_json(one_run(2)))
    assert Result.load(Path("nowhere")) is None
