"""The lifelong-learning metrics: what holds for all logs and all matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.metrics.lifelong import LIFELONG_METRICS, lifelong_metrics, task_metrics
from cl_platform.metrics.lifelong.logs import Block, LifelongLog, from_matrix
from cl_platform.metrics.matrix_metrics import compute_metrics
from tests.helpers.lifetimes import lifetime, log_of, train

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


@given(accuracies)
def test_with_two_experiences_maintenance_is_backward_transfer(rows: list) -> None:
    matrix = AccuracyMatrix(np.array(rows)[:3, :2])
    assert lifetime(from_matrix(matrix), "performance_maintenance") == pytest.approx(
        100 * compute_metrics(matrix)["backward_transfer"], abs=1e-9
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
