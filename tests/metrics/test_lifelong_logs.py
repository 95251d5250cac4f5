"""Logs of lifelong learning on disk: scores others obtained from theirs, the format, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cl_platform.errors import BadInput, DataError
from cl_platform.metrics.lifelong import TaskMetrics, lifelong_metrics, task_metrics
from cl_platform.metrics.lifelong.logs import Block, LifelongLog, read_l2_experts, read_l2_log
from tests.helpers.lifetimes import lifetime, train

TOLERANCE = 1e-6

# The scores that the authors of l2metrics obtained for their example.


@pytest.fixture
def example(real_data: Path) -> Path:
    folder = real_data / "l2metrics_example"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


LIFETIME_FIGURES = {
    "perf_recovery": "performance_recovery",
    "avg_train_perf": "average_training_performance",
    "avg_eval_perf": "average_evaluation_performance",
    "perf_maintenance_mrlep": "performance_maintenance",
    "forward_transfer_ratio": "forward_transfer_ratio",
    "backward_transfer_ratio": "backward_transfer_ratio",
    "ste_rel_perf": "relative_performance",
    "sample_efficiency": "sample_efficiency",
}
WORDS = {"run_id", "complexity", "difficulty", "scenario_type", "metrics_column"}


def figures_of(task: TaskMetrics) -> dict[str, object]:
    """A task's figures under the names that l2metrics gives them."""

    def ratios(transfers: object) -> object:
        return {other: [t.ratio for t in found] for other, found in transfers.items()}

    return {
        "perf_recovery": task.performance_recovery,
        "avg_train_perf": task.average_training_performance,
        "avg_eval_perf": task.average_evaluation_performance,
        "perf_maintenance_mrlep": task.performance_maintenance,
        "forward_transfer_ratio": ratios(task.forward),
        "backward_transfer_ratio": ratios(task.backward),
        "ste_rel_perf": task.relative_performance,
        "sample_efficiency": task.sample_efficiency,
        "recovery_times": task.recovery_times,
        "avg_train_perf_vals": task.training,
        "avg_eval_perf_vals": task.evaluation,
        "maintenance_val_mrlep": task.maintenance,
        "ste_rel_perf_vals": [e.relative_performance for e in task.experts],
        "ste_saturation_vals": [e.saturation for e in task.experts],
        "ste_exp_to_sat_vals": [e.experiences_to_saturation for e in task.experts],
        "se_saturation_vals": [e.saturation_ratio for e in task.experts],
        "se_exp_to_sat_vals": [e.experience_ratio for e in task.experts],
        "sample_efficiency_vals": [e.sample_efficiency for e in task.experts],
        "se_task_saturation": task.saturation,
        "se_task_exp_to_sat": task.experiences_to_saturation,
        "min": task.minimum,
        "max": task.maximum,
        "num_lx": task.training_experiences,
        "num_ex": task.evaluation_experiences,
    }


def same(found: object, stored: object) -> bool:
    """Equal to 1e-6, through lists and mappings."""
    if isinstance(stored, dict):
        return found.keys() == stored.keys() and all(same(found[k], stored[k]) for k in stored)
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(same, found, stored))
    return abs(found - stored) < TOLERANCE


def test_every_figure_of_the_example(example: Path) -> None:
    stored = json.loads((example / "multi_task_metrics.json").read_text())
    log = read_l2_log(example / "ll_logs" / "multi_task")
    experts = read_l2_experts(example / "ste_logs")
    assert len(experts) == 4
    values, tasks = lifelong_metrics(log, experts), task_metrics(log, experts)
    found = {old: values[f"lifelong.{new}"] for old, new in LIFETIME_FIGURES.items()}
    found |= {
        "min": min(task.minimum for task in tasks.values()),
        "max": max(task.maximum for task in tasks.values()),
        "num_lx": sum(task.training_experiences for task in tasks.values()),
        "num_ex": sum(task.evaluation_experiences for task in tasks.values()),
        "runtime": log.seconds,
        "normalization_data_range": {
            name: {"min": task.value_range[0], "max": task.value_range[1]}
            for name, task in tasks.items()
        },
        "task_metrics": {name: figures_of(task) for name, task in tasks.items()},
    }
    assert found.keys() == stored.keys() - WORDS
    for name in found.keys() - {"task_metrics"}:
        assert same(found[name], stored[name]), name
    assert list(tasks) == list(stored["task_metrics"])
    for task, figures in stored["task_metrics"].items():
        assert found["task_metrics"][task].keys() == figures.keys()
        for name in figures:
            assert same(found["task_metrics"][task][name], figures[name]), (task, name)


def test_contrasts_of_the_example_follow_from_its_stored_evaluations(example: Path) -> None:
    stored = json.loads((example / "multi_task_metrics.json").read_text())["task_metrics"]
    log = read_l2_log(example / "ll_logs" / "multi_task")
    # The evaluations before and after the first three blocks, which train one task each.
    rows = [figures["avg_eval_perf_vals"][:4] for figures in stored.values()]

    def contrast(target: int, step: int) -> float:
        before, after = rows[target][step], rows[target][step + 1]
        return (after - before) / (after + before)

    forward = [contrast(1, 0), contrast(2, 0), contrast(2, 1)]
    experts = read_l2_experts(example / "ste_logs")
    assert lifetime(log, "forward_transfer_contrast", *experts) == pytest.approx(np.mean(forward))


# The format on disk.

HEADER = "block_num\texp_num\tworker_id\tblock_type\ttask_name\texp_status\tperformance\n"


def write(folder: Path, block: str, *rows: str, header: str = HEADER) -> Path:
    """Writes a file of rows whose columns are separated by spaces."""
    file = folder / block / "data-log.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(header + "".join(row.replace(" ", "\t") + "\n" for row in rows))
    return folder


def test_blocks_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "w/10-test", "10 5 w test NA complete 7", "10 6 w test b complete 8")
    write(
        tmp_path,
        "w/9-train",
        "9 4 w train NA complete 3",
        "9 3 w train NA complete 1",
        "9 4 w train NA incomplete 99",
        "9 2 w train NA complete nan",
    )
    write(tmp_path, "v/9-train", "9 4 v train NA complete 5")  # a second worker
    log = read_l2_log(str(tmp_path))
    assert [(b.task, b.kind, b.curve.tolist()) for b in log.blocks] == [
        ("NA", "train", [1, 4]),
        ("NA", "evaluation", [7]),
        ("b", "evaluation", [8]),
    ]
    assert log.value_range is None
    assert math.isnan(log.seconds)


def test_another_column_may_be_the_measure(tmp_path: Path) -> None:
    header = HEADER.replace("performance", "reward")
    write(tmp_path, "w/0-train", "0 0 w train a complete 4", header=header)
    assert read_l2_log(tmp_path, measure="reward").blocks[0].curve.tolist() == [4]
    with pytest.raises(DataError, match=r"no column performance: it has .*reward; give measure="):
        read_l2_log(tmp_path)


ROW = "0 0 w train a complete 4"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0 0 w train a complete four"], "performance is 'four'"),
        (["0 0 w train a complete inf"], "performance is 'inf'"),
        (["0 x w train a complete 4"], "exp_num is 'x'"),
        (["0  w train a complete 4"], "exp_num is empty"),
        (["0 0 w sleep a complete 4"], "block_type is 'sleep'; only train, test"),
        (["0 0 w train a incomplete 4"], "no completed experience"),
        (["0 0 w train a complete "], "no completed experience"),
        ([], "no completed experience"),
        ([ROW + " 1 2 3", ROW + " 1"], "lines have more fields than the header"),
        ([ROW, ROW + " 1"], "cannot be read"),
        (["0 0 w"], "block_type is ''"),
    ],
)
def test_malformed_logs_end_in_one_line(tmp_path: Path, rows: list[str], message: str) -> None:
    write(tmp_path, "w/0-train", *rows)
    with pytest.raises(DataError, match=message) as caught:
        read_l2_log(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x00" * 9])
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "w/0-train", ROW)
    (tmp_path / "w/0-train/data-log.tsv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_l2_log(tmp_path)
    assert "\n" not in str(caught.value)


def test_sleeping_blocks_are_refused(tmp_path: Path) -> None:
    header = HEADER.replace("worker_id", "block_subtype")
    write(tmp_path, "w/0-train", "0 0 wake train a complete 4", header=header)
    assert len(read_l2_log(tmp_path).blocks) == 1
    write(tmp_path, "w/1-test", "1 1 sleep test a complete 4", header=header)
    with pytest.raises(DataError, match="block_subtype is 'sleep'; only wake can be scored"):
        read_l2_log(tmp_path)


def test_folders_without_a_run_or_with_several(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the folder of a run"):
        read_l2_log(tmp_path / "absent")
    with pytest.raises(DataError, match="one subfolder per expert"):
        read_l2_experts(tmp_path)
    for run in ("one", "two"):
        write(tmp_path / run, "w/0-train", ROW)
        (tmp_path / run / "logger_info.json").write_text("{}")
    with pytest.raises(DataError, match="holds 2 runs"):
        read_l2_log(tmp_path)
    assert len(read_l2_experts(tmp_path)) == 2


def test_time_is_from_the_first_to_the_last_experience(tmp_path: Path) -> None:
    header = HEADER.replace("worker_id", "timestamp")
    write(
        tmp_path,
        "w/0-train",
        "0 0 20210415T145959.5 train a complete 4",
        "0 1 soon train a complete 4",
        "0 2 20210415T150001.0 train a complete 4",
        header=header,
    )
    assert read_l2_log(tmp_path).seconds == pytest.approx(1.5)


def test_blocks_and_logs_check_what_they_are_given() -> None:
    with pytest.raises(BadInput, match="kind 'test': it is one of train, evaluation"):
        Block("a", "test")  # type: ignore[arg-type]
    for curve in ([np.nan], [np.inf], [[1.0]], ["x"], 3.0):
        with pytest.raises(BadInput, match="vector of finite numbers"):
            Block("a", "train", curve)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="leave the block out"):
        Block("a", "evaluation")
    with pytest.raises(BadInput, match="0 blocks"):
        LifelongLog(())
    with pytest.raises(BadInput, match="one Block at least"):
        LifelongLog(("a",))  # type: ignore[arg-type]
    for value_range in ((1.0, 0.0), (0.0, 0.0), (0.0, math.inf)):
        with pytest.raises(BadInput, match="value_range"):
            LifelongLog((train("a"),), value_range)
