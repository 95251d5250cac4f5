"""What `clp sweep` prints while it works, and what of failed runs is shown."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import Planner
from sweeps import console as show
from sweeps.api import Sweep, _show, preview
from sweeps.planning import Run, plan_runs
from sweeps.record import Phase, Tally, write_sweep
from sweeps.spec import SweepSpec, parse_spec
from tests.helpers.report_runs import MODEL, STREAMS

SPEC = {
    "name": "small",
    "base": {"stream": STREAMS[0], "model": MODEL},
    "axes": {"strategy": ["finetune", "er"], "seed": [0, 1]},
}


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return parse_spec(SPEC)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner()


@pytest.fixture(scope="module")
def runs(spec: SweepSpec, planner: Planner) -> list[Run]:
    return plan_runs(spec, planner)


@pytest.fixture(scope="module")
def out(runs: list[Run], planner: Planner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all runs but the last have ended."""
    folder = tmp_path_factory.mktemp("out")
    for run in runs[:-1]:
        execute(planner(run.config, run.order), folder, keep="none")
    return folder


def printed(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def driver(**facts: Any) -> Any:
    return cast(Any, SimpleNamespace(**{"pool": None, "in_flight": lambda: 0, **facts}))


def test_what_will_be_run_stands_before_ray_starts(runs: list[Run]) -> None:
    console, some = printed(), driver()
    show.Progress(console).of(some)
    some.begin(Phase("runs", runs))
    lines = text_of(console).splitlines()
    assert [line.split() for line in lines] == [
        ["4", "runs"],
        ["strategy", "finetune,", "er"],
        ["seed", "0,", "1"],
        ["starting", "Ray", "..."],
    ]
    console = printed()
    show.Progress(console).of(started := driver(pool=object()))
    started.begin(Phase("final", runs[:1]))
    assert "starting" not in text_of(console)
    assert text_of(console).startswith("1 run (final)")


def test_many_values_are_cut(runs: list[Run]) -> None:
    assert show.listed([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, 5, 6, 7, ... 9 in all"
    assert show.listed(["a"]) == "a"


def test_the_best_so_far_is_a_point_by_its_mean(runs: list[Run], out: Path) -> None:
    phase = Phase("runs", runs, Tally(runs=4, done=3), done={run.run_id for run in runs[:-1]})
    best = show.Best()
    assert str(best) == ""
    best.look(out, phase)
    means = {}
    for name, some in (("finetune", runs[:2]), ("er", runs[2:3])):
        found = [show.read_results(out, [r.run_id])[0].metrics["average_accuracy"] for r in some]
        means[name] = sum(found) / len(found)
    name = max(means, key=means.__getitem__)
    count = {"finetune": "2 runs", "er": "1 run"}[name]
    assert str(best) == f"best so far {100 * means[name]:.1f} %, {count}: {name}"


def test_while_tuning_the_best_is_by_validation_data(runs: list[Run], tmp_path: Path) -> None:
    metrics = {runs[0].run_id: {"validation/average_accuracy": 0.25}, runs[2].run_id: {}}
    phase = Phase("tune", runs, metrics=metrics, done={runs[0].run_id, runs[2].run_id})
    best = show.Best()
    best.look(tmp_path, phase)  # which holds no result
    assert str(best) == "best so far 25.0 %, 1 run: finetune"


def test_the_live_display_shows_it(runs: list[Run], out: Path) -> None:
    tally = Tally(4, 3, experiences=12, distinct=12, trained=9)
    phase = Phase("runs", runs, tally, done={run.run_id for run in runs[:-1]})
    progress = show.Progress(printed(terminal=True))
    progress._counted -= 2
    progress.of(some := driver(out=out))(phase)
    assert some.begin is not None
    picture = progress._picture(phase, "").plain
    progress.close()
    assert picture.splitlines()[-1].strip().startswith("best so far ")
    assert max(map(len, picture.splitlines())) <= 80


def test_a_dry_run_lists_the_values(spec: SweepSpec, tmp_path: Path) -> None:
    found = preview(spec, tmp_path)
    assert found.values == {"strategy": ["finetune", "er"], "seed": ["0", "1"]}
    console = printed()
    show.plan(found, console)
    assert "strategy: finetune, er" in text_of(console)
    assert found.to_json()["values"] == found.values


def failed_sweep(spec: SweepSpec, runs: list[Run], out: Path) -> Sweep:
    done, error = {run.run_id for run in runs[:-1]}, "the loss is nan"
    errors = {runs[-1].run_id: error}
    phase = Phase("runs", runs, Tally(4, 3, failed=1), errors=errors, done=done)
    write_sweep(out, spec, [phase], "done")
    return Sweep(spec, out, [phase], [], 1.0)


def test_a_failed_run_is_a_row_of_the_results(spec: SweepSpec, runs: list[Run], out: Path) -> None:
    found = failed_sweep(spec, runs, out)
    frame = found.results()
    assert len(frame) == 4
    (row,) = frame[frame["error"] != ""].to_dict("records")
    assert (row["run_id"], row["error"]) == (runs[-1].run_id, "the loss is nan")
    assert (row["axis.strategy"], row["axis.seed"]) == ("er", "1")
    assert row["strategy.name"] == "er"
    assert frame["average_accuracy"].notna().sum() == 3
    assert "3 of 4 runs, 1 failed" in repr(found)


def test_no_line_begins_with_a_name_twice(spec: SweepSpec, runs: list[Run], out: Path) -> None:
    console = printed()
    found = failed_sweep(spec, runs, out)
    show.outcome(found, console)
    text = text_of(console)
    assert "runs: runs" not in text
    assert "runs 3 of 4 done, 1 failed" in text
    assert "1 of 4 runs failed: the loss is nan" in text
    shown: list[str] = []
    bar = cast(Any, SimpleNamespace(show=lambda share, text: shown.append(text)))
    for name in ("runs", "tune"):
        _show(bar, Phase(name, runs, Tally(4, 1, distinct=12)))
    assert shown[0].startswith("1 of 4 runs, ")
    assert shown[1].startswith("tune: 1 of 4 runs, ")
