"""The lifelong-learning metrics: small logs by hand, and matrices of accuracies."""

from __future__ import annotations

import math

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import ClpError
from cl_platform.metrics.lifelong import LIFELONG_METRICS, lifelong_metrics, task_metrics
from cl_platform.metrics.lifelong.curves import smooth
from cl_platform.metrics.lifelong.logs import from_matrix
from cl_platform.metrics.registry import metrics
from tests.helpers.lifetimes import evaluate, lifetime, log_of, train

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
    assert [list(block) for block in tasks["a"].maintenance] == [
        pytest.approx([-10, 10]),
        pytest.approx([-1]),
    ]
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
    experience_ids=("x", "y", "z"),
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


def test_every_metric_has_a_name() -> None:
    assert set(lifelong_metrics(log_of(train("a")))) == set(LIFELONG_METRICS)
    assert len(LIFELONG_METRICS) == 10
    assert not set(LIFELONG_METRICS) & set(metrics())


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
