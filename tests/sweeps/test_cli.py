"""The exit codes of `clp sweep` and `clp submit` where nothing was done."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sweeps.api
from sweeps import submit
from sweeps.api import Sweep
from sweeps.record import Phase, Tally
from sweeps.spec import parse_spec

Clp = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("done", "code"), [(0, 1), (1, 0)])
def test_hours_that_are_used_up_with_nothing_done_are_a_failure(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, code: int
) -> None:
    phase = Phase("runs", [], Tally(runs=2, done=done))
    stopped = "the budget of 0.1 hours is used up"
    found = Sweep(parse_spec({}), tmp_path, [phase], [], 1.0, stopped)
    monkeypatch.setattr(sweeps.api, "sweep", lambda *_, **__: found)
    (tmp_path / "s.yaml").write_text("axes: {seed: [0, 1]}\n")
    got, out, err = clp("sweep", "s.yaml", "--json")
    assert got == code
    assert json.loads(out)["stopped"] == stopped
    expected = f"error: no run has ended: {stopped}; raise budget.hours\n"
    assert err == (expected if code else "")


def test_a_person_is_told_at_once_that_runs_are_planned(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text("axes: {sed: [0]}\n")
    assert clp("sweep", "s.yaml")[1] == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, _ = clp("sweep", "s.yaml")
    assert (code, out) == (2, "planning the runs of s.yaml ...\n")


def test_a_job_server_that_never_answers_is_one_line(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "ANSWER_SECONDS", 0.1)
    (tmp_path / "s.yaml").write_text("axes: {seed: [0]}\n")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the call and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        code, _, err = clp("submit", "s.yaml", "--address", address, "--out", str(tmp_path))
    assert code == 2
    assert err.startswith(f"error: the job server at {address} does not answer (timed out")
    assert len(err.splitlines()) == 1
