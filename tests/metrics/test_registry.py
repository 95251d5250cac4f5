"""The registry of metrics, and a metric of one's own from its function to everything that shows it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.config import registry as names
from cl_platform.config.registry import plugins
from cl_platform.core.code_digest import code_digest
from cl_platform.core.matrix import MASKS, AccuracyMatrix
from cl_platform.errors import BadInput, ConfigError
from cl_platform.metrics import registry
from cl_platform.metrics.bounds import BOUNDS
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.metrics.registry import find_metric, metric, metrics, registered_functions
from cl_platform.report.leaderboard import measures_of
from cl_platform.report.render import render, write_report
from cl_platform.report.runs import read_runs
from cl_platform.results.result import Result
from sweeps.planning import plan_runs
from sweeps.record import Phase
from sweeps.spec import Tune, parse_spec
from sweeps.tuning.choice import choose
from tests.conftest import ROOT
from tests.helpers.processes import start_clp
from tests.helpers.report_runs import changed, one_run, put
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER, VALIDATED, spec

R = AccuracyMatrix([[0.1, 0.2], [0.9, 0.3], [0.4, 0.8]])
registers = pytest.mark.usefixtures("registry_of_metrics")


def documented() -> dict[str, dict[str, str]]:
    """The rows of the tables in the documentation by the metric's name."""
    found: dict[str, dict[str, str]] = {}
    head: list[str] = []
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if "better" in cells:
            head = cells
        elif not cells:
            head = []
        elif head and (name := re.fullmatch(r"`([\w.]+)`", cells[0])):
            prefix = "cost." if "`cost.`" in head[0] else ""
            found[prefix + name[1]] = dict(zip(head, cells, strict=True))
    return found


def test_the_documentation_says_what_the_registry_does() -> None:
    rows = documented()
    assert rows.keys() == metrics().keys()
    for name, row in rows.items():
        known = metrics()[name]
        said = row["better"], row["unit"], row.get("source", "")
        assert said == (known.direction, known.unit, known.source), name
        if known.computed_from not in ("cost", "states"):
            assert row["columns"].startswith(known.columns), name


def test_every_metric_of_the_platform_says_what_it_is() -> None:
    titles = [m.title for m in metrics().values()]
    assert len({*titles}) == len(titles)
    for name, known in metrics().items():
        assert known.direction in ("more", "less")
        masks = {**dict.fromkeys(("cost", "states"), "none")}
        own = ("curve", "curves", "calibration", "predictions", "probes")
        masks |= dict.fromkeys(own, "own")
        assert known.masks == masks.get(known.computed_from, "every")
        if known.function is not None:
            assert known.function.__name__ == name.replace(".", "_")
            assert known.meaning[0].isupper()
            assert not known.meaning.startswith("Return")


def test_a_metric_that_is_not_registered_has_no_direction() -> None:
    unknown = find_metric("of_another_program")
    assert (unknown.direction, unknown.sign, unknown.unit) == ("none", 0, "")
    assert unknown.title == "of another program"


@registers
def test_a_decorated_function_is_a_metric_and_stays_a_function() -> None:
    @metric(direction="less", unit="points")
    def spread_at_the_end(r: AccuracyMatrix) -> float:
        """Return the largest accuracy at the end
        less the smallest.

        More than a paragraph.
        """
        return float(np.ptp(r.values[-1]))

    known = metrics()["spread_at_the_end"]
    assert (known.title, known.direction, known.unit) == ("spread at the end", "less", "points")
    assert known.meaning == "Largest accuracy at the end less the smallest."
    assert compute_metrics(R)["spread_at_the_end"] == spread_at_the_end(R) == pytest.approx(0.4)
    assert registered_functions()["spread_at_the_end"] is spread_at_the_end


def raising(r: AccuracyMatrix) -> float:
    raise KeyError("no\nsuch experience")


def nothing(r: AccuracyMatrix) -> None:
    return None


def infinite(r: AccuracyMatrix) -> float:
    return math.inf


def a_list(r: AccuracyMatrix) -> list[float]:
    return [0.5, 0.5]


def sorting(r: AccuracyMatrix) -> float:
    r.values.sort()  # in place
    return 0.0


@registers
@pytest.mark.parametrize("function", [raising, nothing, infinite, a_list, sorting])
def test_a_metric_that_fails_costs_one_line_and_no_run(
    function: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric(f"bad.{function.__name__}")(function)
    result = clp.run("blobs", "finetune", out=tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"metric 'bad.{function.__name__}' is nan: ")
    assert math.isnan(result.metrics[f"task/bad.{function.__name__}"])
    assert result.metrics["average_accuracy"] == result.matrix.values[-1].mean()
    assert result.path is not None
    assert Result.load(result.path) is not None


def other(r: AccuracyMatrix) -> float:
    return 0.0


@registers
@pytest.mark.parametrize(
    ("name", "options", "function", "message"),
    [
        ("forgetting", {}, other, "of tests.metrics.test_registry is registered by cl_platform"),
        ("cost.seconds", {}, other, "is registered by cl_platform.metrics.registry already"),
        ("", {"direction": "max"}, other, "direction='max'; give more, less or none"),
        ("task/other", {}, other, "give a name of letters, digits, underscores and dots"),
        ("other", {}, 0.5, "is 0.5: give a function"),
        (other, {}, other, "without parentheses"),
    ],
)
def test_what_is_wrong_with_a_registration_is_one_line(
    name: Any, options: dict[str, Any], function: Any, message: str
) -> None:
    before = metrics()
    with pytest.raises(BadInput, match=message) as caught:
        metric(name, **options)(function)
    assert len(str(caught.value).splitlines()) == 1
    assert metrics() == before


MODULE = """
from cl_platform.metrics.registry import metric
from strategies.baselines import Finetune

@metric(title="last", direction="{direction}")
def last_accuracy(r):
    return r[-1, -1]

class Mine(Finetune):
    pass
"""


@registers
def test_a_module_that_is_imported_again_replaces_its_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    # Bytecode of an edit within the same second, of the same size, would be taken for that of the file.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, direction in (("first_name", "more"), ("first_name", "less"), ("again", "none")):
        path = tmp_path / "first_name.py"
        path.write_text(MODULE.format(direction=direction))
        found = importlib.util.spec_from_file_location(name, path)  # as a script it is __main__
        assert found is not None
        assert found.loader is not None
        found.loader.exec_module(importlib.util.module_from_spec(found))
        assert metrics()["last_accuracy"].direction == direction


def test_an_edit_of_a_metric_changes_the_digest_of_what_scores(own_metric: str) -> None:
    before = code_digest(registered_functions())
    assert code_digest(registered_functions()) == before
    function: Any = registered_functions()[own_metric]
    function.__code__ = (lambda r: float(r.values[-1].max())).__code__
    assert code_digest(registered_functions()) != before


# --- from an installed package


def install(folder: Path, entry: str, module: str = MODULE.format(direction="more")) -> None:
    """Put a package with an entry point into a folder, as an installer does."""
    (folder / "their_metrics.py").write_text(module)
    about = folder / "their_metrics-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-metrics\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[cl_platform.metrics]\n{entry}\n")


def run_beside(folder: Path) -> tuple[int, str, str]:
    """A run in a process that finds what is installed in a folder: (exit code, stdout, stderr)."""
    arguments = ["run", "--stream", "blobs", "--strategy", "finetune", "--json"]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    process = start_clp(arguments, folder, env=env)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.system
def test_an_entry_point_reaches_every_process(tmp_path: Path) -> None:
    install(tmp_path, "last_accuracy = their_metrics:last_accuracy")
    code, out, err = run_beside(tmp_path)
    assert (code, err) == (0, "")
    result = json.loads(out)
    for mask in MASKS:
        prefix = "" if mask == "seen" else f"{mask}/"
        assert result["metrics"][f"{prefix}last_accuracy"] == result["matrix"][mask][-1][-1]


def test_an_entry_point_without_the_decorator_has_its_own_name_and_no_direction(
    registry_of_metrics: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "named_there = their_metrics:plain", "def plain(r): return 0.25")
    monkeypatch.syspath_prepend(tmp_path)
    caches = (plugins, names._entry_points, registry._load_entry_points)
    for cached in caches:
        cached.cache_clear()
    assert compute_metrics(R)["named_there"] == 0.25
    assert metrics()["named_there"].direction == "none"
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()
    assert "named_there" not in metrics()


@pytest.mark.system
def test_a_package_that_takes_a_name_of_ours_is_refused_in_one_line(tmp_path: Path) -> None:
    install(tmp_path, "forgetting = their_metrics:mine", "def mine(r): return 0.0")
    code, out, err = run_beside(tmp_path)
    line = (
        "metric 'forgetting' of their_metrics is registered by cl_platform.metrics.matrix_metrics "
        "already; give it another name"
    )
    assert (code, json.loads(out), err) == (2, {"error": [line]}, f"error: {line}\n")


# --- everything that shows it


def test_the_example_is_in_results_under_every_mask(own_metric: str) -> None:
    stream = {"name": "split-digits", "experiences": 2, "validation": 0.2}
    result = clp.run(stream, "finetune", out=None)
    for split, matrices in (("", result.matrices), ("validation/", result.validation)):
        for mask, matrix in matrices.items():
            name = f"{split}{'' if mask == 'seen' else f'{mask}/'}{own_metric}"
            assert result.metrics[name] == matrix.values[-1].min()


def test_the_example_is_in_the_report(own_metric: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        clp.run("blobs", "finetune", seed=seed, out=tmp_path)
    runs = read_runs(tmp_path)
    rows = list(csv.DictReader(io.StringIO(render(runs, "csv").decode())))
    assert [float(row[own_metric]) for row in rows] == [
        r.matrix.values[-1].min() for r in runs.results
    ]
    names = [m.name for m in measures_of(runs) if m.listed]
    assert (
        names.index("calibration error") < names.index("worst experience") < names.index("training")
    )
    assert "worst experience (%)" in render(runs, "markdown").decode().splitlines()[0]
    page = write_report(runs).read_text()
    meaning = "Lowest accuracy on any experience after the last one: min_j R[T, j]."
    assert f'data-key="{own_metric}" title="{meaning}">worst experience <small>%</small>' in page
    assert f'{{"key":"{own_metric}","name":"worst experience","unit":"%","sign":1}}' in page
    assert f"<td>worst experience<td>{own_metric}<td>{meaning}" in page


def test_a_report_shows_a_metric_that_is_not_registered_here_without_a_direction(
    tmp_path: Path,
) -> None:
    data, odd = changed(one_run(), 1), "of_<them>"
    data["metrics"] |= {odd: 0.375, f"task/{odd}": 0.5}
    runs = read_runs(put(tmp_path, data))
    (measure,) = [m for m in measures_of(runs) if m.metric.sign == 0]
    assert (measure.key, measure.title, measure.shown(0.375)) == (odd, "of <them>", "0.375")
    assert 'data-key="of_&lt;them&gt;"' in write_report(runs).read_text()


def test_a_sweep_is_tuned_by_the_example(own_metric: str, tmp_path: Path) -> None:
    given = spec(
        {"lr": [0.001, 0.1, 0.3], "epochs": [3]},
        base={"stream": VALIDATED},
        tune={"metric": own_metric},
    )
    assert given.tune is not None
    phase = Phase("tune", plan_runs(given, PLANNER))
    Here(given, tmp_path, PLANNER).carry_out(phase)
    (choice,) = choose(given.tune, phase, tmp_path)
    results = read_runs(tmp_path).results
    scores = {
        str(r.config["optimizer"]["lr"]): r.validation["seen"].values[-1].min() for r in results
    }
    assert len(scores) == 3
    assert choice.objective == max(scores.values()) > min(scores.values())
    assert scores[choice.point["lr"]] == choice.objective


# --- the direction of an objective


@pytest.mark.parametrize(
    ("tune", "mode"),
    [
        ({}, "max"),
        ({"metric": "forgetting"}, "min"),
        ({"metric": "curriculum.beta"}, "min"),
        ({"metric": "backward_transfer"}, "max"),
        ({"metric": "forgetting", "mode": "max"}, "max"),
    ],
)
def test_the_objective_follows_the_direction_of_its_metric(tune: Any, mode: str) -> None:
    assert Tune(**tune).mode == mode
    found = parse_spec({"tune": tune}).model_dump()
    assert found["tune"]["mode"] == mode


@registers
def test_a_metric_without_a_direction_is_tuned_with_a_mode_only() -> None:
    metric()(other)
    message = r"^tune.metric=other has no direction: give tune.mode, max or min$"
    with pytest.raises(ConfigError, match=message):
        parse_spec({"tune": {"metric": "other"}})
    tune = parse_spec({"tune": {"metric": "other", "mode": "min"}}).tune
    assert tune is not None
    assert tune.mode == "min"


@pytest.mark.parametrize("name", ["cost.seconds", "calibration_error", "intransigence", "nonsense"])
def test_only_metrics_of_the_matrix_are_objectives(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tune.metric={name}: "):
        parse_spec({"tune": {"metric": name}})


@registers
@pytest.mark.parametrize(
    "document",
    [
        {"base": {"strategy": "beside_it:Mine"}},
        {"base": {"strategy": {"name": "beside_it:Mine"}}},
        {"axes": {"strategy": ["er", {"name": "beside_it:Mine"}]}},
        {"axes": {"strategy": {"grid": ["er", "beside_it:Mine"]}}},
    ],
)
def test_a_metric_beside_a_strategy_is_an_objective(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_it.py").write_text(MODULE.format(direction="less"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "beside_it", raising=False)
    tune = parse_spec({**document, "tune": {"metric": "last_accuracy"}}).tune
    assert tune is not None
    assert tune.mode == "min"


# --- bounds


def test_bounds_are_of_metrics_that_there_are_and_hold_what_they_say() -> None:
    known = metrics()
    assert BOUNDS.keys() <= known.keys()
    assert known["average_accuracy"].bounds == (0, 1)
    assert known["forgetting"].bounds == (-1, 1)
    assert known["cost.train_seconds"].bounds == (0, math.inf)
    shares = [m for m in known.values() if m.unit == "fraction" and m.is_builtin]
    unbounded = {m.name for m in shares if m.bounds is None}
    assert unbounded == {"normalised_forgetting", "normalised_transfer", "low_shot_transfer"}


@pytest.mark.parametrize("bounds", [(1, 0), (0,), 1, ("a", 2), (math.nan, 1)])
def test_bounds_that_are_none_are_refused_in_one_line(bounds: Any) -> None:
    with pytest.raises(BadInput, match=r"^metric 'odd': bounds=.*; give \(least, most\), say"):
        metric("odd", bounds=bounds)(last_entry)


def last_entry(r: AccuracyMatrix) -> float:
    return float(r.values[-1, -1])
