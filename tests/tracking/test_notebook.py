"""Progress in a notebook: one output that is renewed, and empty in the end."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import cl_platform as clp
from cl_platform.tracking.notebook import in_notebook


class Output:
    """Stands for IPython: what the outputs of a cell show, one list of HTML for each."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def display(self, html: str, display_id: bool) -> Any:
        assert display_id
        self.shown.append([html])
        return SimpleNamespace(update=self.shown[-1].append)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    found = Output()
    shell = SimpleNamespace(kernel=None)
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = SimpleNamespace(HTML=str, display=found.display)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


RUN: dict[str, Any] = {
    "stream": {"name": "blobs", "experiences": 3, "samples_per_class": 20},
    "strategy": "finetune",
    "model": {"name": "mlp", "hidden": [8]},
}


def test_a_run_is_one_bar(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    clp.run(**RUN, out=None)
    (bar,) = output.shown
    assert "finetune on blobs: experience 3 of 3, mean accuracy so far" in bar[-2]
    assert 'value="1.0000"' in bar[-2]
    assert bar[-1] == ""
    shares = [float(html.split('"')[1]) for html in bar[:-1]]
    assert shares == sorted(shares)
    assert capsys.readouterr() == ("", "")


def test_silence_can_be_had(output: Output) -> None:
    clp.run(**RUN, out=None, sinks=())
    assert output.shown == []


def test_a_failed_run_says_so_in_its_place(output: Output) -> None:
    with pytest.raises(clp.ClpError):
        clp.run(**RUN, epochs=30, lr=1e20, out=None)
    assert all("failed" in bar[-1] or bar[-1] == "" for bar in output.shown)


def test_a_result_that_was_there_needs_no_bar(output: Output, tmp_path: Any) -> None:
    clp.run(**RUN, out=tmp_path)
    clp.run(**RUN, out=tmp_path)
    assert len(output.shown) == 1


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
