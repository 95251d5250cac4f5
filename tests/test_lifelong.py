"""The lifelong-learning metrics: scores others obtained, small logs by hand, properties, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cl_platform as clp
from cl_platform.errors import BadInput, ClpError, DataError
from cl_platform.lifelong import LIFELONG_METRICS, TaskMetrics, lifelong_metrics, task_metrics
from cl_platform.lifelong_curves import smooth
from cl_platform.lifelong_logs import (
    Block,
    LifelongLog,
    from_matrix,
    read_l2_experts,
    read_l2_log,
)
from cl_platform.matrix import AccuracyMatrix
from cl_platform.metrics import METRICS

TOLERANCE = 1e-6


def train(task: str, *curve: float) -> Block:
    return Block(task, "train", np.array(curve, float))


def evaluate(task: str, *values: float) -> Block:
    return Block(task, "evaluation", np.array(values, float))


def log_of(*blocks: Block, unit: bool = True) -> LifelongLog:
    """A log whose raw values are mapped to themselves plus 1, or else by its own extremes."""
    return LifelongLog(blocks, value_range=(0.0, 100.0) if unit else None)


def lifetime(log: LifelongLog, name: str, *experts: LifelongLog) -> float:
    return lifelong_metrics(log, experts)[f"lifelong.{name}"]


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


# By hand.


def test_smoothing_lags_and_mirrors() -> None:
    assert smooth(np.arange(1.0, 16)) == pytest.approx([2, 5 / 3, *range(2, 15)])
    assert smooth(np.arange(1.0, 15)) == pytest.approx(range(1, 15))  # a window of 2 is none
    assert smooth(np.arange(20.0)) == pytest.approx([1, 1, *np.arange(1.5, 18), 18])
    long = np.arange(1000.0)
    assert smooth(long)[500] == pytest.approx(long[450:550].mean())


def test_maintenance_is_measured_from_the_evaluation_after_the_last_training() -> None:
    log = log_of(
        evaluate("a", 5),
        train("a", 1),
        evaluate("a", 50),
        train("b", 1),
        evaluate("a", 40),
        evaluate("a", 60),
        train("a", 1),
        evaluate("a", 80),
        train("b", 1),
        evaluate("a", 79),
        evaluate("b", 7),
        evaluate("b", 9),
    )
    tasks = task_metrics(log)
    assert same(tasks["a"].maintenance, [[-10, 10], [-1]])
    assert tasks["a"].performance_maintenance == pytest.approx(-1 / 3)
    assert tasks["b"].performance_maintenance == pytest.approx(2)
    assert lifetime(log, "performance_maintenance") == pytest.approx((-1 / 3 + 2) / 2)


def test_transfer_goes_from_the_task_trained_to_the_one_evaluated_before_and_after() -> None:
    log = log_of(
        evaluate("a", 9),
        evaluate("b", 9),
        train("a"),
        evaluate("a", 49),
        evaluate("b", 19),
        train("b"),
        evaluate("a", 24),
        evaluate("b", 89),
        train("a"),
        evaluate("b", 44),
    )
    tasks = task_metrics(log)
    assert tasks["a"].transfers("forward_transfer_ratio") == {"b": pytest.approx(2)}
    assert tasks["a"].transfers("forward_transfer_contrast") == {"b": pytest.approx(10 / 30)}
    assert tasks["b"].transfers("backward_transfer_ratio") == {"a": pytest.approx(0.5)}
    assert tasks["a"].transfers("backward_transfer_contrast") == {"b": pytest.approx(-45 / 135)}
    assert tasks["b"].forward == {}
    assert lifetime(log, "forward_transfer_ratio") == pytest.approx(2)
    assert lifetime(log, "backward_transfer_ratio") == pytest.approx((0.5 + 0.5) / 2)
    assert lifetime(log, "backward_transfer_contrast") == pytest.approx(-1 / 3)
    assert tasks["a"].metrics()["lifelong.backward_transfer_ratio"] == pytest.approx(0.5)


def test_of_several_transfers_between_two_tasks_the_first_one_counts() -> None:
    log = log_of(
        train("b"), evaluate("b", 9), train("a"), evaluate("b", 19), train("a"), evaluate("b", 79)
    )
    assert [t.ratio for t in task_metrics(log)["a"].backward["b"]] == pytest.approx([2, 4])
    assert lifetime(log, "backward_transfer_ratio") == pytest.approx(2)


def test_an_undefined_transfer_makes_way_for_the_next_one() -> None:
    log = log_of(evaluate("b", -1), train("a"), evaluate("b", 1), train("a"), evaluate("b", 3))
    assert lifetime(log, "forward_transfer_ratio") == pytest.approx(2)
    zero = log_of(evaluate("b", 4), train("a"), evaluate("b", -6))
    assert math.isnan(lifetime(zero, "forward_transfer_contrast"))


def test_learning_the_evaluated_task_itself_is_no_transfer() -> None:
    for blocks in ((train("a"), train("b")), (train("b"), train("a"))):
        log = log_of(evaluate("b", 1), *blocks, evaluate("b", 9))
        assert math.isnan(lifetime(log, "forward_transfer_ratio"))
        assert math.isnan(lifetime(log, "backward_transfer_ratio"))


def test_tasks_trained_between_the_same_evaluations_are_both_credited() -> None:
    log = log_of(evaluate("c", 9), train("a"), train("b"), train("a"), evaluate("c", 19))
    tasks = task_metrics(log)
    assert [len(tasks[name].forward["c"]) for name in "ab"] == [1, 1]
    assert list(tasks) == ["a", "b", "c"]  # c is never trained


def test_averages_are_of_blocks_then_of_tasks() -> None:
    log = log_of(
        train("a", 0, 10), train("a", 20), train("b", 60), evaluate("a", 1, 2, 3), evaluate("b", 8)
    )
    assert lifetime(log, "average_training_performance") == pytest.approx(1 + (12.5 + 60) / 2)
    assert lifetime(log, "average_evaluation_performance") == pytest.approx(1 + (2 + 8) / 2)


def test_recovery_is_reached_at_the_mean_of_the_last_tenth_of_the_block_before() -> None:
    log = log_of(
        train("a", 0, 50),
        train("a", 10, 20, 60, 70),  # back at 50 after 2
        train("a", 10, 69),  # never back at 70: 3
        train("a", 10, 69, 80),  # 1
        train("a", 80, 10),  # 0
    )
    task = task_metrics(log)["a"]
    assert task.recovery_times == (2, 3, 1, 0)
    slopes = [1, -1 / 2, -2 / 3, -2, -3 / 2, -1]
    assert task.performance_recovery == pytest.approx(-np.median(slopes))
    assert lifetime(log, "performance_recovery") == pytest.approx(5 / 6)


def test_the_terminal_value_is_the_mean_of_the_last_tenth() -> None:
    blocks = train("a", *[0] * 9, 8), train("a", 7, 8, 9)
    assert task_metrics(log_of(*blocks))["a"].recovery_times == (1,)
    # Of eleven values the last two; both windows are too short for smoothing.
    blocks = train("a", *[0] * 9, 8, 10), train("a", 8.5, 9, 10)
    assert task_metrics(log_of(*blocks))["a"].recovery_times == (1,)


def test_recovery_that_never_changes_is_zero_without_a_sign() -> None:
    log = log_of(train("a", 1), train("a", 2), train("a", 3))
    recovery = lifetime(log, "performance_recovery")
    assert recovery == 0
    assert math.copysign(1, recovery) == 1


def test_relative_performance_goes_as_far_as_the_shorter_curve() -> None:
    log = log_of(train("a", 9, 19), evaluate("a", 99), train("a", 29, 99))
    short, long = log_of(train("a", 9, 9, 9)), log_of(train("a", *[19] * 5), evaluate("a", 0))
    tasks = task_metrics(log, [short, long])
    ratios = [expert.relative_performance for expert in tasks["a"].experts]
    assert ratios == pytest.approx([60 / 30, 160 / 80])
    assert lifetime(log, "relative_performance", short, long) == pytest.approx(2)


def test_sample_efficiency_weighs_height_against_time() -> None:
    log = log_of(train("a", 0, 10), train("a", 20, 39, 30))  # 40 after 3
    expert = log_of(train("a", 0, 19, 10))  # 20 after 1
    assert lifetime(log, "sample_efficiency", expert) == pytest.approx(40 / 20 * 1 / 3)
    comparison = task_metrics(log, [expert])["a"].experts[0]
    assert comparison.saturation == pytest.approx(20)
    assert comparison.saturation_ratio == pytest.approx(2)
    assert comparison.experience_ratio == pytest.approx(1 / 3)


def test_sample_efficiency_looks_at_curves_smoothed_once_more() -> None:
    curve = np.linspace(0, 90, 15)
    figures = task_metrics(log_of(train("a", *curve[:7]), train("a", *curve[7:])))["a"]
    assert figures.saturation == pytest.approx(smooth(curve + 1).max())
    assert figures.experiences_to_saturation == 14


def test_sample_efficiency_is_zero_where_nothing_was_learned() -> None:
    expert = log_of(train("a", 0, 99))
    low, falling = log_of(train("a", 17, 18)), log_of(train("a", 50, 60, 30))
    assert lifetime(low, "sample_efficiency", expert) == 0
    assert lifetime(falling, "sample_efficiency", expert) == 0
    assert lifetime(log_of(train("a", 17, 19)), "sample_efficiency", expert) == pytest.approx(0.2)


@pytest.mark.parametrize("curve", [(50,), (50, 50, 50), (60, 30, 60)])
def test_sample_efficiency_is_undefined_where_the_highest_value_comes_first(curve: tuple) -> None:
    expert = log_of(train("a", 0, 99))
    assert math.isnan(lifetime(log_of(train("a", *curve)), "sample_efficiency", expert))
    assert math.isnan(lifetime(expert, "sample_efficiency", log_of(train("a", *curve))))


def test_without_a_stated_range_a_task_spans_its_log_and_its_experts_training() -> None:
    log = log_of(train("a", 2, 4), evaluate("a", 6), train("b", 5), evaluate("b", 5), unit=False)
    expert = log_of(train("a", 3, 10), evaluate("a", 100), unit=False)
    tasks = task_metrics(log, [expert])
    assert tasks["a"].value_range == (2, 10)
    assert tasks["a"].evaluation == pytest.approx((51,))
    assert tasks["b"].evaluation == (1,)  # it never changes


def test_the_range_is_of_smoothed_curves() -> None:
    log = log_of(train("a", *range(1, 16)), unit=False)
    assert task_metrics(log)["a"].value_range == pytest.approx((5 / 3, 14))


# Of a matrix.

R = AccuracyMatrix(
    [[0.10, 0.20, 0.30], [0.80, 0.25, 0.30], [0.90, 0.70, 0.40], [0.50, 0.60, 0.95]],
    labels=("x", "y", "z"),
    names=("a", "b", "c"),
)


def test_a_matrix_has_the_metrics_that_need_no_training_curve() -> None:
    values = lifelong_metrics(from_matrix(R))
    assert values["lifelong.performance_maintenance"] == pytest.approx(
        100 * (((0.90 - 0.80) + (0.50 - 0.80)) / 2 + (0.60 - 0.70)) / 2
    )
    pairs = [(21, 26), (31, 31), (31, 41)]
    assert values["lifelong.forward_transfer_ratio"] == pytest.approx(
        np.mean([after / before for before, after in pairs])
    )
    assert values["lifelong.forward_transfer_contrast"] == pytest.approx(
        np.mean([(after - before) / (after + before) for before, after in pairs])
    )
    assert values["lifelong.backward_transfer_ratio"] == pytest.approx(
        np.mean([91 / 81, 51 / 91, 61 / 71])
    )
    assert values["lifelong.average_evaluation_performance"] == pytest.approx(
        1 + 100 * R.values.mean()
    )
    undefined = {name.removeprefix("lifelong.") for name in values if math.isnan(values[name])}
    assert undefined == {
        "relative_performance",
        "sample_efficiency",
        "performance_recovery",
        "average_training_performance",
    }


def test_a_matrix_names_its_tasks() -> None:
    assert from_matrix(R).tasks == ("a", "b", "c")
    assert from_matrix(AccuracyMatrix(R.values, names=("a", "a", "b"))).tasks == ("1", "2", "3")
    assert from_matrix(AccuracyMatrix(R.values)).tasks == ("1", "2", "3")


def test_under_the_mask_seen_forward_transfer_is_none() -> None:
    values = lifelong_metrics(from_matrix(AccuracyMatrix(np.tril(R.values, -1))))
    assert values["lifelong.forward_transfer_ratio"] == 1
    assert values["lifelong.forward_transfer_contrast"] == 0


@pytest.mark.parametrize("values", [[[0.1], [0.9]], [[np.nan], [np.nan]]])
def test_a_single_experience_has_nothing_but_its_evaluations(values: list) -> None:
    found = lifelong_metrics(from_matrix(AccuracyMatrix(values)))
    average = found.pop("lifelong.average_evaluation_performance")
    assert math.isnan(average) or average == pytest.approx(51)
    assert all(math.isnan(value) for value in found.values())


# Properties.

accuracies = st.integers(2, 5).flatmap(
    lambda t: st.lists(
        st.lists(st.floats(0, 1), min_size=t, max_size=t), min_size=t + 1, max_size=t + 1
    )
)
curves = st.lists(st.integers(0, 100), min_size=1, max_size=14)  # too short for smoothing
blocks = st.lists(
    st.builds(
        lambda task, kind, curve: Block(task, kind, np.array(curve, float)),
        st.sampled_from("abc"),
        st.sampled_from(["train", "evaluation"]),
        curves,
    ),
    min_size=1,
    max_size=12,
)
experts = st.lists(
    st.builds(lambda task, curve: log_of(train(task, *curve)), st.sampled_from("abc"), curves),
    max_size=4,
)


def test_every_metric_has_a_name() -> None:
    assert set(lifelong_metrics(log_of(train("a")))) == set(LIFELONG_METRICS)
    assert len(LIFELONG_METRICS) == 10
    assert not set(LIFELONG_METRICS) & set(METRICS)


@given(accuracies)
def test_with_two_experiences_maintenance_is_backward_transfer(rows: list) -> None:
    matrix = AccuracyMatrix(np.array(rows)[:3, :2])
    assert lifetime(from_matrix(matrix), "performance_maintenance") == pytest.approx(
        100 * METRICS["backward_transfer"](matrix), abs=1e-9
    )


@given(accuracies)
def test_metrics_of_a_matrix_are_bounded(rows: list) -> None:
    tasks = task_metrics(from_matrix(AccuracyMatrix(np.array(rows))))
    count = len(rows[0])
    assert sum(len(task.forward) for task in tasks.values()) == count * (count - 1) / 2
    assert sum(len(task.backward) for task in tasks.values()) == count * (count - 1) / 2
    for task in tasks.values():
        for given_to in (*task.forward.values(), *task.backward.values()):
            for transfer in given_to:
                assert 1 / 101 <= transfer.ratio <= 101
                assert transfer.contrast == pytest.approx(
                    (transfer.ratio - 1) / (transfer.ratio + 1), abs=1e-9
                )


@given(blocks, experts)
def test_no_log_makes_an_exception(found: list[Block], others: list[LifelongLog]) -> None:
    for value_range in (None, (0.0, 100.0)):
        log = LifelongLog(tuple(found), value_range)
        values = lifelong_metrics(log, others)
        assert set(values) == set(LIFELONG_METRICS)
        assert not any(math.isinf(value) for value in values.values())


@given(blocks, experts, st.integers(-50, 50))
def test_without_a_stated_range_the_unit_of_performance_does_not_matter(
    found: list[Block], others: list[LifelongLog], shift: int
) -> None:
    def changed(log: LifelongLog) -> LifelongLog:
        return LifelongLog(tuple(Block(b.task, b.kind, 2 * (b.curve + shift)) for b in log.blocks))

    log = LifelongLog(tuple(found))
    before = lifelong_metrics(log, others)
    after = lifelong_metrics(changed(log), [changed(expert) for expert in others])
    assert after == pytest.approx(before, nan_ok=True)


@given(blocks, experts)
def test_names_of_tasks_and_repeated_experts_do_not_matter(
    found: list[Block], others: list[LifelongLog]
) -> None:
    def renamed(log: LifelongLog) -> LifelongLog:
        return LifelongLog(tuple(Block(f"z{b.task}", b.kind, b.curve) for b in log.blocks))

    log = LifelongLog(tuple(found))
    values = lifelong_metrics(log, others)
    again = lifelong_metrics(renamed(log), [renamed(expert) for expert in others * 2])
    assert again == pytest.approx(values, nan_ok=True)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=60).map(sorted))
def test_a_task_is_as_good_as_an_expert_that_did_the_same(curve: list[int]) -> None:
    values = lifelong_metrics(log_of(train("a", *curve)), [log_of(train("a", *curve))])
    assert values["lifelong.relative_performance"] == pytest.approx(1)
    efficiency = values["lifelong.sample_efficiency"]
    assert math.isnan(efficiency) or efficiency == pytest.approx(1)


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


def test_experts_train_one_task_each() -> None:
    log = log_of(train("a", 1, 2))
    for blocks, message in (
        ((evaluate("a", 1),), "trains 0 tasks"),
        ((train("a", 1), train("b", 1)), r"trains 2 tasks \(a, b\)"),
        ((train("a"),), "without a training curve"),
    ):
        with pytest.raises(ClpError, match=message):
            lifelong_metrics(log, [log_of(*blocks)])
    assert math.isnan(lifetime(log, "relative_performance", log_of(train("b", 1))))


def test_a_result_has_the_suite_of_its_own_matrix() -> None:
    result = clp.run("blobs", "finetune", out=None)
    found = result.lifelong()
    assert found == pytest.approx(lifelong_metrics(from_matrix(result.matrix)), nan_ok=True)
    assert found["lifelong.performance_maintenance"] < 0  # whoever only fine-tunes forgets
    assert math.isnan(found["lifelong.sample_efficiency"])
