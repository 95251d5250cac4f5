"""What a notebook shows of a sweep."""

from __future__ import annotations

from pathlib import Path

import cl_platform as clp
from sweeps.api import Sweep
from sweeps.record import Phase, Tally
from sweeps.spec import parse_spec
from tests.helpers.report_runs import MODEL, STREAMS


def test_a_sweep_shows_its_leaderboard(tmp_path: Path) -> None:
    for strategy in ("finetune", "er"):
        for seed in (0, 1):
            clp.run(STREAMS[0], strategy, model=MODEL, seed=seed, out=tmp_path, keep="none")
    spec = parse_spec({"name": "two", "base": {}, "axes": {"strategy": ["finetune", "er"]}})
    phase = Phase("runs", [], Tally(runs=4, done=4))
    html = Sweep(spec, tmp_path, [phase], [], 61.0)._repr_html_()
    assert "<b>two</b>" in html
    assert "4 of 4 runs, ended after 1 min 01 s" in html
    assert html.count("<tr>") == 3
    assert ">finetune</td>" in html
    assert ">er</td>" in html


def test_one_without_results_says_so_too(tmp_path: Path) -> None:
    spec = parse_spec({"name": "none", "base": {}, "axes": {"strategy": ["er"]}})
    phase = Phase("runs", [], Tally(runs=1, failed=1))
    (tmp_path / "runs").mkdir()
    html = Sweep(spec, tmp_path, [phase], [], 2.0, "out of <time>")._repr_html_()
    assert "0 of 1 runs, 1 failed, out of &lt;time&gt; after 2 s" in html
    assert "<table" not in html
