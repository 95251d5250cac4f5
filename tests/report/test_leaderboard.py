"""Reports: what is read of a folder, rows and tables, and the command line."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest

import cl_platform as clp
from cl_platform.engine.execution import execute
from cl_platform.errors import BadInput, StorageError
from cl_platform.metrics.bounds import SHARE
from cl_platform.metrics.comparison import bounded_mean, compare
from cl_platform.metrics.registry import find_metric
from cl_platform.report.leaderboard import measures_of, rows_of
from cl_platform.report.orders.study import studies
from cl_platform.report.papers.layout import Layout
from cl_platform.report.render import Format, render, write_report
from cl_platform.report.runs import Runs, read_runs
from cl_platform.report.tables import csv
from cl_platform.results.load import read_results
from cl_platform.results.result import KEY
from cl_platform.storage.sealed import SWEEP, seal
from sweeps.record import Phase, write_failure, write_sweep
from tests.cli.test_cli import Clp
from tests.helpers.report_runs import (
    changed,
    one_run,
    own_matrix,
    put,
    real_runs,
    reseal,
)
from tests.helpers.sweep_runs import PLANNER, planned, spec


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """The document of a real run, to be changed."""
    return one_run()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Real runs: two streams x two strategies x two curricula x three seeds."""
    out = tmp_path_factory.mktemp("report") / "out"
    real_runs(out)
    return read_runs(out)


# --- results of a folder


def test_all_results_of_a_folder_are_a_frame(runs: Runs) -> None:
    frame = clp.load_results(runs.folder)
    assert len(frame) == 24
    assert set(frame["run_id"]) == {path.name for path in (runs.folder / "runs").iterdir()}
    for _, row in frame.iterrows():
        data = json.loads((runs.folder / "runs" / row["run_id"] / "result.json").read_text())
        assert row["order"] == tuple(data["order"])
        assert row["strategy.name"] == data["config"]["strategy"]["name"]
        assert row["cost.train_seconds"] == data["cost"]["train_seconds"]
        for name, value in data["metrics"].items():
            assert row[name] == value or (value is None and math.isnan(row[name]))


def test_the_frame_of_given_runs_is_in_their_order(runs: Runs) -> None:
    ids = [result.run_id for result in runs.results][5:2:-1]
    assert clp.load_results(runs.folder, [*ids, "gone"])["run_id"].tolist() == ids


def test_metrics_that_are_undefined_are_nan(tmp_path: Path) -> None:
    result = clp.run({"name": "blobs", "experiences": 1}, "finetune", out=tmp_path, keep="none")
    written = json.loads((tmp_path / "runs" / result.run_id / "result.json").read_text())
    assert written["metrics"]["forgetting"] is None
    frame = clp.load_results(tmp_path)
    assert frame["forgetting"].dtype == float
    assert math.isnan(frame["forgetting"].iloc[0])
    assert b"nan" not in render(read_runs(tmp_path), "csv")


UNREADABLE = {
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "\x00\xff",
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "another version": lambda text: text.replace('"metrics"', '"scores"'),
    "metrics as a list": lambda text: json.dumps({**json.loads(text), "metrics": [1]}),
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_what_cannot_be_read_is_left_out(
    tmp_path: Path, model: dict[str, Any], damage: str
) -> None:
    put(tmp_path, changed(model, 1), changed(model, 2, seed=1))
    path = tmp_path / "runs" / f"{2:012x}" / "result.json"
    path.write_text(UNREADABLE[damage](path.read_text()), encoding="latin-1")
    assert clp.load_results(tmp_path)["run_id"].tolist() == [f"{1:012x}"]
    assert [result.run_id for result in read_results(tmp_path)] == [f"{1:012x}"]
    assert len(rows_of(read_runs(tmp_path))) == 1


FOREIGN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no own mask": lambda data: data["matrix"].clear(),
    "no metrics": lambda data: data["metrics"].clear(),
    "undefined accuracy": lambda data: data["metrics"].update(average_accuracy=None),
    "no strategy": lambda data: data["config"].pop("strategy"),
    "no seed": lambda data: data["config"].pop("seed"),
    "strategy as text": lambda data: data["config"].update(strategy="er"),
    "unknown scenario": lambda data: data.update(scenario="mixed"),
    "experiences as numbers": lambda data: data.update(experiences=[0, 1, 2]),
    "no order": lambda data: data.update(order=None),
    "ragged matrix": lambda data: data["matrix"]["seen"].pop(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_result_of_another_make_spoils_no_report(
    tmp_path: Path, model: dict[str, Any], kind: str
) -> None:
    foreign = changed(model, 2, strategy={"name": "er"})
    FOREIGN[kind](foreign)
    put(tmp_path, changed(model, 1), foreign)
    frame = clp.load_results(tmp_path)
    assert f"{1:012x}" in set(frame["run_id"])
    text = write_report(read_runs(tmp_path)).read_text()
    assert f"{1:012x}" in text


@pytest.mark.parametrize("place", ["gone", "file"])
def test_where_there_is_no_folder_that_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    for read in (clp.load_results, read_results, read_runs):
        with pytest.raises(StorageError, match=r"no folder .*: give the --out folder"):
            read(tmp_path / place)


# --- axes of a plain folder


def test_parameters_that_vary_are_axes_and_others_are_not(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    er = [{"name": "er", "memory_size": size, "memory": "reservoir"} for size in (10, 20)]
    put(
        tmp_path,
        *(changed(model, i, strategy=er[i], epochs=i + 1) for i in range(2)),
        changed(model, 2, strategy={"name": "si"}),
    )
    frame = read_runs(tmp_path).frame
    assert frame["axis.strategy"].tolist() == ["er memory_size=10", "er memory_size=20", "si"]
    assert frame["axis.epochs"].tolist() == ["1", "2", "1"]
    assert set(frame["axis.stream"]) == {"blobs"}
    assert "axis.batch_size" not in frame
    assert "axis.optimizer.lr" not in frame


def test_explicit_orders_are_their_numbers(tmp_path: Path, model: dict[str, Any]) -> None:
    orders = [[2, 0, 1], [0, 1, 2]]
    put(
        tmp_path,
        *(
            changed(model, i, curriculum={"name": "explicit", "level": "experiences", "order": o})
            for i, o in enumerate(orders)
        ),
    )
    assert read_runs(tmp_path).frame["axis.curriculum"].tolist() == ["2 0 1", "0 1 2"]
    put(tmp_path, changed(model, 9, curriculum={"name": "random", "seed": None}))
    frame = read_runs(tmp_path).frame
    assert frame["axis.curriculum"].tolist() == ["2 0 1", "0 1 2", "random"]


SCHEDULE = {"name": "steplr", "interval": "epoch", "step_size": 1}
SGD = {"name": "sgd", "lr": 0.05, "reset": True}
ONE_HAS_IT: dict[str, list[dict[str, Any]]] = {
    "schedule": [{"schedule": None}, {"schedule": SCHEDULE}],
    "momentum": [{"optimizer": SGD}, {"optimizer": {**SGD, "momentum": 0.9}}],
    "curriculum parameter": [
        {"curriculum": {"name": "random", "level": "experiences"}},
        {"curriculum": {"name": "random", "level": "classes"}},
    ],
}


@pytest.mark.parametrize("what", ONE_HAS_IT)
def test_runs_that_differ_are_different_rows(
    tmp_path: Path, model: dict[str, Any], what: str
) -> None:
    put(tmp_path, *(changed(model, i, **given) for i, given in enumerate(ONE_HAS_IT[what])))
    assert [len(row.indices) for row in rows_of(read_runs(tmp_path))] == [1, 1]


def test_runs_without_a_seed_in_common_have_a_report(tmp_path: Path, model: dict[str, Any]) -> None:
    for i, strategy in enumerate(("er", "si")):
        put(
            tmp_path,
            *(
                changed(model, 9 * i + k, seed=9 * i + k, strategy={"name": strategy})
                for k in range(3)
            ),
        )
    rows = rows_of(read_runs(tmp_path))
    assert sorted(len(row.indices) for row in rows) == [3, 3]
    assert write_report(read_runs(tmp_path)).exists()


def test_orders_of_classes_and_experiences_with_equal_numbers_are_not_one(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    explicit = {"name": "explicit", "order": [2, 0, 1]}
    levels = ("experiences", "classes")
    put(
        tmp_path,
        *(changed(model, i, curriculum={**explicit, "level": v}) for i, v in enumerate(levels)),
    )
    assert len(rows_of(read_runs(tmp_path))) == 2


# --- a sweep's folder


@pytest.fixture
def swept(tmp_path: Path) -> Callable[..., Path]:
    """A sweep's record, and the results of some of its runs."""

    def write(done: int, status: str = "done", **more: Any) -> Path:
        planned_ = planned({"strategy": ["finetune", "joint"], "seed": [0, 1]})
        scores = {"designer": {run.run_id: float(i) for i, run in enumerate(planned_)}}
        phase = Phase("runs", planned_)
        for run in planned_[:done]:
            execute(PLANNER(run.config, run.order), tmp_path, keep="none")
            phase.done.add(run.run_id)
        phase.tally.runs, phase.tally.done = len(planned_), done
        for run in planned_[done:]:
            phase.errors[run.run_id] = "it broke" if run.config.seed else "it <b>broke</b>"
        phase.tally.failed = len(phase.errors)
        phases = [*more.pop("before", []), phase]
        write_sweep(tmp_path, spec(), phases, status, scores=scores, **more)
        return tmp_path

    return write


def test_a_sweep_has_the_points_it_gave_its_runs(swept: Callable[..., Path]) -> None:
    found = read_runs(swept(4))
    assert found.frame["axis.strategy"].tolist() == ["finetune", "finetune", "joint", "joint"]
    assert found.frame["axis.seed"].tolist() == ["0", "1", "0", "1"]
    assert found.frame["score.designer"].tolist() == [0, 1, 2, 3]
    assert [c for c in found.frame if c.startswith("axis.")] == ["axis.strategy", "axis.seed"]
    assert [result.run_id for result in found.results] == found.frame["run_id"].tolist()
    assert (found.name, found.running, sum(found.errors.values())) == ("sweep", False, 0)
    assert "4 of 4 runs done" in write_report(found).read_text()


def test_a_sweep_counts_what_failed(swept: Callable[..., Path]) -> None:
    found = read_runs(swept(2, "running"))
    assert (len(found.results), found.running) == (2, True)
    assert found.errors == {"it broke": 1, "it <b>broke</b>": 1}
    text = write_report(found).read_text()
    assert "2 failed" in text
    at = text.index("2 runs failed")
    assert at < text.index("<h2>Leaderboard")
    assert "strategy joint, seed 0: <b>it &lt;b&gt;broke&lt;/b&gt;</b>" in text[at:]
    assert "<b>broke" not in text


def test_of_a_sweep_with_tuning_the_last_phase_counts(swept: Callable[..., Path]) -> None:
    tuning = planned({"strategy": ["er"], "seed": [7]})
    out = swept(2, before=[Phase("tune", tuning)])
    execute(PLANNER(tuning[0].config, tuning[0].order), out, keep="none")
    assert set(read_runs(out).frame["axis.strategy"]) == {"finetune"}


def test_runs_that_are_part_of_others_are_left_out(swept: Callable[..., Path]) -> None:
    out = swept(4)
    reseal(
        out / "sweep.json", SWEEP, lambda data: data["phases"][-1]["runs"][0].update(whole=False)
    )
    assert len(read_runs(out).results) == 3


DAMAGED = ["", "{", "[]", "null", "{}", '{"phases": []}', '{"phases": [{}]}', '{"phases": 3}',
           '{"phases": [{"runs": [{"run_id": "x"}]}]}', '{"phases": [{"runs": []}]}']  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_of_a_sweep_spoils_no_report(
    tmp_path: Path, model: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, changed(model, 1))
    (tmp_path / "sweep.json").write_text(text)
    assert write_report(read_runs(tmp_path)).exists()
    assert (tmp_path / "sweep.json.corrupt").read_text() == text
    err = capsys.readouterr().err
    assert "/sweep.json is corrupt (its checksum is wrong): kept as sweep.json.corrupt" in err
    assert len(err.splitlines()) == 1


# --- rows


def test_rows_are_means_over_seeds_with_intervals(runs: Runs) -> None:
    rows = rows_of(runs)
    assert len(rows) == 8
    assert sorted(place for row in rows for place in row.indices) == list(range(24))
    scale = {m.key: m.scale for m in measures_of(runs)}
    assert scale["average_accuracy"] == 100
    for row in rows:
        mine = [runs.results[i].to_json() for i in row.indices]
        configs = [data["config"] for data in mine]
        assert {c["strategy"]["name"] for c in configs} == {row.strategy}
        assert {c["curriculum"]["name"] for c in configs} == {row.curriculum}
        assert {f"blobs experiences={c['stream']['experiences']}" for c in configs} == {row.stream}
        by_seed = sorted((c["seed"], d["metrics"]) for c, d in zip(configs, mine, strict=True))
        assert [seed for seed, _ in by_seed] == [0, 1, 2]
        for key in ("average_accuracy", "forgetting"):
            values = [metrics[key] for _, metrics in by_seed]
            assert row.values[key].value == pytest.approx(np.mean(values))
            assert row.values[key] == bounded_mean(
                values, find_metric(key.rpartition("/")[2]).bounds
            )
        matrices = [own_matrix(data) / 100 for data in mine]
        for i, point in enumerate(row.curve, 1):
            assert point.value == pytest.approx(np.mean([m[i, :i].mean() for m in matrices]))
        assert row.curve[-1].value == pytest.approx(row.values["average_accuracy"].value)


def test_rows_stand_by_stream_best_first_and_the_best_are_marked(runs: Runs) -> None:
    rows = rows_of(runs)
    streams = [row.stream for row in rows]
    assert streams == sorted(streams, key=streams.index)
    for stream in set(streams):
        mine = [row for row in rows if row.stream == stream]
        accuracies = [row.values["average_accuracy"].value for row in mine]
        assert accuracies == sorted(accuracies, reverse=True)
        found = compare({str(i): row.seeds for i, row in enumerate(mine)}, bounds=SHARE)
        wanted = [str(i) not in found or found[str(i)][1] > 0.05 for i in range(len(mine))]
        assert [row.best for row in mine] == wanted
        assert mine[0].best
        assert mine[0].strategy == "er"


def test_no_interval_of_a_table_or_a_curve_leaves_its_bounds(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    for seed, accuracy in enumerate((0.999, 0.99, 0.91)):
        data = changed(model, seed, seed=seed)
        data["metrics"] |= {"average_accuracy": accuracy, "forgetting": 2 * accuracy - 1}
        data["cost"]["train_seconds"] = 10.0**seed
        data["matrix"] = {mask: [[accuracy] * 3] * 4 for mask in data["matrix"]}
        put(tmp_path, data)
    runs = read_runs(tmp_path)
    (row,) = rows_of(runs)
    accuracy = row.values["average_accuracy"]
    assert 0 < accuracy.low < accuracy.value < accuracy.high < 1
    assert all(point == accuracy for point in row.curve)
    assert row.values["forgetting"].high == 1
    assert row.values["cost.train_seconds"].low == 0
    shown = f"{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}"
    kinds: tuple[Format, ...] = ("markdown", "latex")
    for kind in kinds:
        assert shown in render(runs, kind).decode()


def test_what_can_be_told_from_the_best_is_not_best(tmp_path: Path, model: dict[str, Any]) -> None:
    levels = {"er": 0.8, "ewc": 0.79, "si": 0.2}
    rng = np.random.default_rng(0)
    for i, (strategy, level) in enumerate(levels.items()):
        for seed in range(6):
            data = changed(model, 9 * i + seed, seed=seed, strategy={"name": strategy})
            data["metrics"]["average_accuracy"] = level + rng.normal(0, 0.05)
            put(tmp_path, data)
    runs = read_runs(tmp_path)
    assert {row.strategy: row.best for row in rows_of(runs)} == {
        "er": True,
        "ewc": True,
        "si": False,
    }
    lines = render(runs, "latex", Layout(("accuracy",))).decode().splitlines()
    bold = [line.partition(" &")[0] for line in lines if "textbf" in line]
    assert sorted(bold) == ["er", "ewc"]


def test_orders_put_together_are_means_of_each_seed(runs: Runs) -> None:
    rows = rows_of(runs, together=True)
    assert len(rows) == 4
    for row in rows:
        assert (row.curriculum, len(row.indices)) == ("", 6)
        mine = [runs.results[i].to_json() for i in row.indices]
        for seed, value in row.seeds.items():
            same = [d["metrics"]["average_accuracy"] for d in mine if d["config"]["seed"] == seed]
            assert len(same) == 2
            assert value == pytest.approx(np.mean(same))
        assert row.values["average_accuracy"] == bounded_mean(list(row.seeds.values()), SHARE)


def test_a_single_seed_has_no_interval(tmp_path: Path, model: dict[str, Any]) -> None:
    runs = read_runs(put(tmp_path, changed(model, 1), changed(model, 2, strategy={"name": "er"})))
    for row in rows_of(runs):
        assert math.isnan(row.values["average_accuracy"].low)
    assert "nan" not in render(runs, "markdown").decode()
    assert "[" not in render(runs, "markdown").decode().partition("Mean with")[0]


def test_a_study_of_orders_needs_no_sweep(tmp_path: Path, model: dict[str, Any]) -> None:
    from itertools import permutations

    documents = []
    for i, order in enumerate(permutations(range(3))):
        given = {"name": "explicit", "level": "experiences", "order": list(order)}
        data = changed(model, i, curriculum=given)
        data["order"] = list(order)
        data["metrics"]["average_accuracy"] = i / 10
        documents.append(data)
    runs = read_runs(put(tmp_path, *documents))
    (study,) = studies(runs.frame)
    assert study.points[0].best.order == (2, 1, 0)
    assert "Orders of" in write_report(runs).read_text()


# --- tables for programs


def test_csv_has_a_row_per_run(runs: Runs) -> None:
    found = pd.read_csv(io.BytesIO(render(runs, "csv")))
    assert found["run_id"].tolist() == runs.frame["run_id"].tolist()
    assert found["average_accuracy"].tolist() == runs.frame["average_accuracy"].tolist()
    assert found["axis.strategy"].tolist() == runs.frame["axis.strategy"].tolist()


def test_parquet_keeps_numbers_and_what_is_missing(tmp_path: Path, model: dict[str, Any]) -> None:
    er = {"name": "er", "memory_size": 10, "memory": "reservoir"}
    cnn = {"name": "cnn", "channels": [8, 16]}
    out = put(tmp_path, changed(model, 1, strategy=er), changed(model, 2, model=cnn))
    runs = read_runs(out)
    found = pd.read_parquet(io.BytesIO(render(runs, "parquet")))
    assert found["average_accuracy"].tolist() == runs.frame["average_accuracy"].tolist()
    assert found["strategy.memory_size"].iloc[0] == 10
    for column in ("strategy.memory_size", "strategy.memory", "model.channels", "model.hidden"):
        assert found[column].isna().sum() == 1, column
    text = render(runs, "csv").decode()
    assert "nan" not in text


def test_no_spreadsheet_takes_a_text_for_a_formula() -> None:
    frame = pd.DataFrame({"=name": ["=1+1", "@x", "+y", "-z", "a=b", None], "value": [-1.5] * 6})
    found = pd.read_csv(io.StringIO(csv(frame)), keep_default_na=False)
    assert found["'=name"].tolist() == ["'=1+1", "'@x", "'+y", "'-z", "a=b", ""]
    assert found["value"].tolist() == [-1.5] * 6


# --- the command


def test_the_page_is_written_and_its_place_printed(clp: Clp, runs: Runs) -> None:
    for name in ("report.html", "runs.parquet"):
        (runs.folder / name).unlink(missing_ok=True)
    code, out, err = clp("report", str(runs.folder))
    assert (code, out, err) == (0, f"{runs.folder / 'report.html'}\n", "")
    assert (runs.folder / "report.html").read_text().startswith("<!doctype html>")
    assert len(pd.read_parquet(runs.folder / "runs.parquet")) == 24


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv"])
def test_tables_are_printed_and_nothing_else(clp: Clp, runs: Runs, kind: Format) -> None:
    code, out, err = clp("report", str(runs.folder), "--format", kind)
    assert (code, err) == (0, "")
    assert out.encode() == render(runs, kind)


def test_parquet_is_written(clp: Clp, runs: Runs) -> None:
    code, out, err = clp("report", str(runs.folder), "--format", "parquet")
    assert (code, out, err) == (0, f"{runs.folder / 'runs.parquet'}\n", "")
    assert len(pd.read_parquet(runs.folder / "runs.parquet")) == 24


@pytest.mark.parametrize("kind", ["html", "markdown", "latex", "csv", "parquet"])
def test_any_of_them_goes_to_a_file(clp: Clp, runs: Runs, tmp_path: Path, kind: Format) -> None:
    code, out, err = clp("report", str(runs.folder), "--format", kind, "--out", "new/file")
    assert (code, out, err) == (0, "new/file\n", "")
    content = (tmp_path / "new" / "file").read_bytes()
    if kind == "html":
        assert content.startswith(b"<!doctype html>")
    else:
        assert content == render(runs, kind)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gone"], 1, "no folder gone"),
        (["a-file"], 1, "no folder a-file"),
        (["other"], 1, "other holds no runs"),
        (["empty", "--format", "markdown"], 2, "empty has no finished run yet"),
        (["empty", "--format", "latex"], 2, "empty has no finished run yet"),
        (["empty", "--format", "csv"], 2, "empty has no finished run yet"),
        (["empty", "--format", "parquet"], 2, "empty has no finished run yet"),
        (["empty", "--format", "docx"], 2, "markdown"),
        (["empty", "--format", "png"], 2, "empty has no finished run yet"),
        (["empty", "--digits", "1"], 2, "digits, spread, by, caption and label are of tables"),
        (["empty", "--watch", "--caption", "x"], 2, "give --format latex"),
        (["empty", "--format", "markdown", "--label", "x"], 2, "only LaTeX has labels"),
        (["empty", "--format", "latex", "--label", "a{b"], 2, "label='a{b'"),
        (["empty", "--format", "latex", "--digits", "11"], 2, "digits=11: give 0 to 10"),
        (["empty", "--format", "latex", "--by", "stream", "--columns", "a,b"], 2, "a table each"),
        (["empty", "--format", "latex", "--rope", "0.02"], 2, "rope=0.02 is of the page"),
        (["empty", "--rope", "nan"], 2, "rope=nan: give what does not matter"),
        (["empty", "--watch", "--format", "csv"], 2, "leave --format and --out away"),
        (["empty", "--watch", "--out", "x"], 2, "leave --format and --out away"),
        (["empty", "--every", "0"], 2, "every=0"),
        (["empty", "--watch", "--every", "nan"], 2, "every=nan"),
        (["empty", "--every", "-1"], 2, "every=-1"),
        (["empty", "--out", "empty"], 1, "empty"),
        (["nope://bucket/x"], 2, "nope"),
        ([], 2, "FOLDER"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    clp: Clp, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "a-file").write_text("")
    found, out, err = clp("report", *words)
    assert (found, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["runs"]
    assert not list((tmp_path / "other").iterdir())


def test_a_folder_without_a_finished_run_has_a_page_that_says_so(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "out" / "runs").mkdir(parents=True)
    code, out, err = clp("report", "out")
    assert (code, out, err) == (0, "out/report.html\n", "")
    assert "No run has ended yet." in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "runs.parquet").exists()


# --- a sweep that goes on


def page_data(path: Path) -> dict[str, Any]:
    text = path.read_text()
    begin = text.index(">", text.index('id="data"')) + 1
    found: dict[str, Any] = json.loads(text[begin : text.index("</script>", begin)])
    return found


def test_a_sweep_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    runs = planned({"seed": [0, 1, 2]})
    write_sweep(tmp_path, spec(), [Phase("runs", runs)], "running")  # as a sweep begins
    execute(PLANNER(runs[1].config, runs[1].order), tmp_path, keep="none")
    write_failure(tmp_path, runs[2], "it broke", None)
    text = write_report(read_runs(tmp_path)).read_text()
    head = text[text.index("<h1>") : text.index("</header>")]
    assert "1 of 3 runs done" in head
    assert "running" in head


def test_a_page_without_runs_follows_a_sweep_as_well(tmp_path: Path) -> None:
    write_sweep(tmp_path, spec(), [Phase("runs", planned())], "running")
    text = write_report(read_runs(tmp_path), reload=0.2).read_text()
    assert "No run has ended yet." in text
    assert "location.reload" in text or 'http-equiv="refresh"' in text


def test_what_is_not_a_running_sweep_is_written_once(clp: Clp, runs: Runs) -> None:
    code, out, err = clp("report", str(runs.folder), "--watch")
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(runs.folder / "report.html")]
    assert page_data(runs.folder / "report.html")["reload"] == 0


# --- at an address


@pytest.fixture
def remote(model: dict[str, Any]) -> str:
    """A folder in memory, as an address, with two runs."""
    files = fsspec.filesystem("memory")
    for i in range(2):
        data = changed(model, i, seed=i)
        files.pipe(f"/reports/runs/{data['run_id']}/result.json", seal(KEY, data))
    return "memory://reports"


def test_a_folder_at_an_address_is_read_and_written(clp: Clp, remote: str) -> None:
    found = read_runs(remote)
    assert [result.run_id for result in found.results] == [f"{i:012x}" for i in range(2)]
    assert len(clp_results := found.frame) == 2
    assert clp_results["seed"].tolist() == [0, 1]
    code, out, err = clp("report", remote)
    assert (code, err) == (0, "")
    assert out.strip().endswith("reports/report.html")
    files = fsspec.filesystem("memory")
    assert files.cat("/reports/report.html").startswith(b"<!doctype html>")
    assert len(pd.read_parquet(io.BytesIO(files.cat("/reports/runs.parquet")))) == 2
    code, out, err = clp("report", remote, "--format", "csv")
    assert (code, err) == (0, "")
    assert len(pd.read_csv(io.StringIO(out))) == 2
    with pytest.raises(StorageError):
        read_runs("memory://nothing-here")


def test_a_report_may_be_written_to_an_address(clp: Clp, runs: Runs, tmp_path: Path) -> None:
    code, out, err = clp(
        "report", str(runs.folder), "--format", "csv", "--out", "memory://here/x.csv"
    )
    assert (code, out, err) == (0, "memory://here/x.csv\n", "")
    assert fsspec.filesystem("memory").cat("/here/x.csv") == render(runs, "csv")
    assert not list(tmp_path.glob("memory*"))


def test_nothing_to_put_into_a_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(BadInput, match="has no finished run yet"):
        render(read_runs(tmp_path), "latex")
