"""What a report makes of a folder: what is told apart, what is left out, and what is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cl_platform as clp
from cl_platform.config import registry
from cl_platform.config.run_config import SECTIONS
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput
from cl_platform.report.leaderboard import rows_of
from cl_platform.report.page_data import page_data
from cl_platform.report.render import render
from cl_platform.report.runs import read_runs
from tests.cli.test_cli import Clp
from tests.helpers.report_runs import MODEL, changed, one_run, put


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """The document of a real run, to be changed."""
    return one_run(2)


def by_code(
    data: dict[str, Any], number: int, code: str, accuracy: float, **settings: Any
) -> dict[str, Any]:
    """A copy of a run by other code of the strategy, which ended at the hour of its number."""
    found = changed(data, number, **settings)
    found["versions"]["code/strategy"] = code
    found["metrics"]["average_accuracy"] = accuracy
    found["ended"] = f"2026-01-01T{number:02d}:00:00+00:00"
    return found


@pytest.fixture
def mended(tmp_path: Path, model: dict[str, Any]) -> Path:
    """Three seeds by old code, whose strategy learned nothing, and three by new code."""
    old = [by_code(model, i, "old", 0.08, seed=i) for i in range(3)]
    new = [by_code(model, 3 + i, "new", 0.19, seed=i) for i in range(3)]
    other = by_code(model, 7, "other", 0.5, strategy={"name": "er"})
    return put(tmp_path, *new, *old, other)


def values(folder: Path, code: str = "newest") -> list[tuple[str, float, int]]:
    rows = rows_of(read_runs(folder, code))
    return [(r.method, round(r.values["average_accuracy"].value, 3), len(r.indices)) for r in rows]


def test_results_of_old_and_new_code_are_no_row(mended: Path) -> None:
    assert values(mended) == [("er", 0.5, 1), ("finetune", 0.19, 3)]
    frame = clp.load_results(mended)
    assert len(frame) == 7
    old = frame[frame["average_accuracy"] == 0.08]["code"].unique().item()
    new = frame[frame["average_accuracy"] == 0.19]["code"].unique().item()
    assert old != new
    assert read_runs(mended).left_out == (
        f"runs by other code with equal settings are left out (3 by {old}); give --code all to see "
        "them in rows of their own, or one of these"
    )
    assert values(mended, "all") == [
        ("er", 0.5, 1),
        (f"finetune {new}", 0.19, 3),
        (f"finetune {old}", 0.08, 3),
    ]
    assert values(mended, old[:6]) == [("finetune", 0.08, 3)]
    with pytest.raises(BadInput, match=r"code='nope': no run is by that code; there are .*3 by "):
        read_runs(mended, "nope")


def test_an_order_by_old_code_is_not_put_together_with_others_by_new_code(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    reverse = {"name": "reverse", "level": "experiences"}
    put(
        tmp_path,
        by_code(model, 1, "old", 0.1),
        by_code(model, 2, "old", 0.1, curriculum=reverse),
        by_code(model, 3, "new", 0.9),
    )
    assert values(tmp_path) == [("finetune", 0.9, 1)]


def test_the_command_line_says_what_is_left_out(clp: Clp, mended: Path) -> None:
    code, out, err = clp("report", str(mended), "--format", "markdown")
    assert code == 0
    assert "8.0" not in out
    assert len(err.splitlines()) == 1
    assert "3 by" in err
    code, out, err = clp("report", str(mended), "--format", "markdown", "--code", "all")
    assert (code, err) == (0, "")
    assert "8.0" in out
    assert "3 by" in render(read_runs(mended), "html").decode()


def test_two_streams_of_one_name_are_two_rows(tmp_path: Path) -> None:
    for n in (2, 4):
        stream = build("stream", {"name": "blobs", "experiences": n, "samples_per_class": 6})
        for seed in (0, 1):
            clp.run(stream, "finetune", model=MODEL, out=tmp_path, seed=seed, permute_labels=True)
    runs = read_runs(tmp_path)
    rows = rows_of(runs)
    assert sorted(len(row.indices) for row in rows) == [2, 2]
    for row in rows:
        (n,) = {len(runs.results[i].experiences) for i in row.indices}
        assert row.stream.startswith("blobs data=")
        assert row.stream.endswith(f"({n} experiences)")
    assert clp.load_results(tmp_path)["data"].nunique() == 2


def test_no_name_in_a_folder_is_imported(
    tmp_path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, tmp_path / "runs"):
        place.mkdir(exist_ok=True)
        (place / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(registry, "_import", lambda *names: asked.append(names))
    names = ("evil:X", "evil.py:X", f"{tmp_path}/evil.py:X", "er")
    named = [{section: {"name": name}} for section in SECTIONS for name in names]
    put(tmp_path, *(changed(model, i, **one) for i, one in enumerate(named)))
    assert len(clp.load_results(tmp_path)) == len(named)
    runs = read_runs(tmp_path)
    for kind in ("html", "markdown"):
        render(runs, kind)  # type: ignore[arg-type]
    assert not asked


def test_the_command_of_a_run_is_that_of_its_record(tmp_path: Path, model: dict[str, Any]) -> None:
    put(tmp_path, changed(model, 1), {**changed(model, 2, seed=1), "command": None})
    runs = read_runs(tmp_path)
    rows = rows_of(runs)
    shown = [run["command"] for run in page_data(runs, rows, [], [])["runs"]]
    assert shown == [model["command"], None]
    assert json.dumps(model["command"]).startswith('"clp run --stream blobs')
