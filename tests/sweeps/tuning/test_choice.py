"""Tuning: the point that is chosen, what an adaptive method searches, and the final runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ClpError, ConfigError
from sweeps.planning import Run
from sweeps.record import Phase
from sweeps.spec import Final, Tune
from sweeps.tuning import choice as tuning
from tests.helpers.sweep_runs import (
    BLOBS,
    LRS,
    PLANNER,
    SEEDS,
    VALIDATED,
    Tuned,
    by_lr,
    planned,
    spec,
)


def test_the_best_point_is_that_of_the_best_mean_over_seeds() -> None:
    (choice,) = Tuned({**LRS, **SEEDS}, by_lr((0.9, 0.1), (0.6, 0.7), (0.5, 0.7))).choose()
    assert choice.point == {"lr": "0.2"}
    assert choice.objective == pytest.approx(0.65)
    assert choice.seeds == 2
    assert choice.config.optimizer.lr == 0.2
    assert choice.group == {"strategy": "finetune"}


def test_the_smallest_mean_is_best_with_mode_min() -> None:
    scores = by_lr((0.9, 0.1), (0.6, 0.7), (0.3, 0.2))
    (choice,) = Tuned({**LRS, **SEEDS}, scores, mode="min").choose()
    assert (choice.point, choice.objective) == ({"lr": "0.3"}, pytest.approx(0.25))


@pytest.mark.parametrize("bad", [math.nan, None], ids=["nan", "failed"])
def test_a_point_that_went_wrong_with_any_seed_is_not_chosen(bad: float | None) -> None:
    (choice,) = Tuned({**LRS, **SEEDS}, by_lr((0.9, bad), (0.2, 0.2), (bad, bad))).choose()
    assert choice.point == {"lr": "0.2"}


def test_each_strategy_has_a_best_point_of_its_own() -> None:
    axes = {"strategy": ["finetune", {"name": "er", "memory_size": {"grid": [5, 6]}}], **LRS}

    def score(run: Run) -> float:
        if run.config.strategy["name"] == "finetune":
            return run.config.optimizer.lr
        return run.config.strategy["memory_size"] - run.config.optimizer.lr

    first, second = Tuned(axes, score).choose()
    assert first.group == {"strategy": "finetune"}
    assert first.point == {"strategy": "finetune", "lr": "0.3"}
    assert second.group == {"strategy": "er"}
    assert second.point == {"strategy": "er memory_size=6", "lr": "0.1"}


@pytest.mark.parametrize(
    ("axis", "groups"),
    [
        ({"scenario": ["class", "task"]}, 2),
        ({"stream.scenario": ["class", "task"]}, 2),
        ({"curriculum": ["as_given", "reverse"]}, 2),
        ({"stream": [BLOBS, {**BLOBS, "data_seed": 1}]}, 2),
        ({"epochs": [1, 2]}, 1),
        ({"model.hidden": [[4], [5]]}, 1),
    ],
    ids=str,
)
def test_what_is_compared_is_not_chosen(axis: dict[str, Any], groups: int) -> None:
    choices = Tuned({**axis, **LRS}, lambda run: run.config.optimizer.lr).choose()
    assert len(choices) == groups
    assert all(choice.config.optimizer.lr == 0.3 for choice in choices)


@pytest.mark.parametrize(("per", "groups"), [([], 1), (["epochs"], 2), (["strategy", "epochs"], 4)])
def test_groups_are_the_users_where_they_are_given(per: list[str], groups: int) -> None:
    axes = {"strategy": ["finetune", "er"], "epochs": [1, 2], **LRS}
    assert len(Tuned(axes, lambda run: 0.5, per=per).choose()) == groups


def test_where_nothing_can_be_chosen_the_first_error_is_told() -> None:
    tuned = Tuned({"strategy": ["finetune", "er"], **LRS}, lambda run: None)
    message = r"^tune: nothing to choose for finetune: every run failed, .*'lr': '0\.1'"
    with pytest.raises(ClpError, match=message):
        tuned.choose()


def test_a_metric_that_is_nowhere_is_named() -> None:
    with pytest.raises(ClpError, match=r"^tune.metric=forgeting: Did you mean 'forgetting'\?"):
        Tuned(LRS, lambda run: 0.5, metric="forgeting")


def test_what_trains_on_the_whole_stream_is_not_tuned_on_a_part() -> None:
    with pytest.raises(ClpError, match="strategy 'joint' trains on the whole stream at once"):
        planned({"strategy": ["joint"]}, tune={"experiences": 2})


def test_points_that_are_nearly_equal_are_chosen_apart() -> None:
    axes = {"lr": [0.99991, 0.99993], **SEEDS}
    (choice,) = Tuned(axes, lambda run: run.config.optimizer.lr).choose()
    assert choice.seeds == 2
    assert choice.config.optimizer.lr == 0.99993
    assert choice.objective == pytest.approx(0.99993, abs=1e-7)


def test_the_objective_of_a_whole_run_is_read_from_its_result(tmp_path: Path) -> None:
    (run,) = planned(base={"stream": VALIDATED}, tune={})
    result = execute(PLANNER(run.config, run.order), tmp_path)
    phase = Phase("tune", [run])
    name = "average_accuracy"
    assert math.isnan(tuning.objective(name, phase, run, tmp_path)), "it has not ended"
    phase.done.add(run.run_id)
    found = tuning.objective(name, phase, run, tmp_path)
    assert found == result.metrics["validation/average_accuracy"]
    assert found != result.metrics["average_accuracy"]


def searches(axes: dict[str, Any], **tune: Any) -> list[tuning.Group]:
    """The searches of an adaptive method."""
    return tuning.groups(spec(axes, tune={"method": "asha", **tune}), PLANNER)


def test_an_adaptive_method_searches_once_for_each_group() -> None:
    memory = {"name": "er", "memory_size": {"integers": [5, 50]}}
    axes = {"strategy": ["finetune", memory], "lr": {"uniform": [0.1, 0.2]}, "seed": [3, 1]}
    first, second = searches(axes, experiences=2)
    assert (first.names, second.names) == ({"strategy": "finetune"}, {"strategy": "er"})
    assert first.seeds == second.seeds == (1, 3)
    assert (len(first.grid), first.experiences) == (1, 2)
    assert sorted(tuning.random_values(first)) == ["lr"]
    assert sorted(tuning.random_values(second)) == ["lr", "strategy.memory_size"]
    point = tuning.point_of(second, {"lr": 0.15, "strategy.memory_size": 7})
    assert point["strategy"] == {"name": "er", "memory_size": 7}
    assert point["lr"] == 0.15


def test_what_is_listed_and_not_compared_is_the_grid_of_a_search() -> None:
    (group,) = searches({"epochs": [1, 2], "lr": [0.1, 0.2], "seed": [0, 1]})
    points = [tuning.point_of(group, {tuning.TEMPLATE: i}) for i in range(4)]
    found = [(point["epochs"], point["lr"]) for point in points]
    assert found == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert len(group.grid) == 4
    assert tuning.upper_bound(Tune(trials=7), [group]).experiences == 7 * 5 * 2


@pytest.mark.parametrize(
    ("axes", "tune", "message"),
    [
        ({"seed": [0, 1]}, {}, "tune.method=asha: nothing to choose for finetune; give it an axis"),
    ],
    ids=str,
)
def test_a_search_for_nothing_is_refused(
    axes: dict[str, Any], tune: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}[^\n]*$"):
        searches(axes, **tune)


def test_listed_values_that_are_nearly_equal_are_all_searched() -> None:
    (group,) = searches({"lr": [0.99991, 0.99993]})
    assert [point["lr"] for point in group.grid] == [0.99991, 0.99993]


def test_each_listed_item_is_drawn_from_its_own_range() -> None:
    small = {"name": "er", "memory_size": {"integers": [5, 9]}, "memory": "reservoir"}
    large = {"name": "er", "memory_size": {"integers": [500, 900]}, "memory": "ring"}
    (group,) = searches({"strategy": [small, large]})
    assert len(group.grid) == 2
    assert {r.arguments for r in tuning.random_values(group).values()} == {(5, 9), (500, 900)}


def test_items_that_differ_in_their_range_only_are_all_searched() -> None:
    ranges = [[5, 9], [500, 900]]
    items = [{"name": "er", "memory_size": {"integers": r}} for r in ranges]
    (group,) = searches({"strategy": items})
    assert len(group.grid) == 2


def test_an_adaptive_method_may_compare_all_orders() -> None:
    stream = {**BLOBS, "experiences": 2}
    axes = {"stream": [stream], "curriculum": ["all"], "lr": {"uniform": [0.1, 0.2]}}
    assert [group.names["curriculum"] for group in searches(axes)] == ["0 1", "1 0"]


def test_tuning_needs_validation_data() -> None:
    tuning.check_validation(planned(base={"stream": VALIDATED}), PLANNER)
    with pytest.raises(BadInput, match=r"^tune: stream 'blobs' has no validation data, [^\n]*$"):
        tuning.check_validation(planned(), PLANNER)


def finals(seeds: Any, tuned: Tuned) -> list[Run]:
    return tuning.final_runs(Final(seeds=seeds), tuned.choose(), tuned.phase.runs, PLANNER)


@pytest.mark.parametrize(
    ("seeds", "expected"), [(3, [0, 2, 4]), (1, [0]), ([3, 8], [3, 8]), ([1], [1])]
)
def test_final_seeds_are_given_or_unused(seeds: Any, expected: list[int]) -> None:
    tuned = Tuned({**LRS, "seed": [1, 3]}, lambda run: run.config.optimizer.lr)
    runs = finals(seeds, tuned)
    assert [run.config.seed for run in runs] == expected
    assert [run.point for run in runs] == [{"lr": "0.3", "seed": str(s)} for s in expected]
    assert all(run.config.optimizer.lr == 0.3 for run in runs)


def test_final_runs_are_whole_and_what_the_single_command_runs() -> None:
    axes = {"strategy": ["finetune", "er"], "curriculum": ["random"], **LRS}
    tuned = Tuned(axes, lambda run: -run.config.optimizer.lr, experiences=2)
    assert {run.upto for run in tuned.phase.runs} == {2}
    runs = finals(2, tuned)
    assert [(r.config.strategy["name"], r.config.seed) for r in runs] == [
        ("finetune", 1),
        ("finetune", 2),
        ("er", 1),
        ("er", 2),
    ]
    for run in runs:
        assert run.whole
        assert run.upto == 5
        alone = make_plan(run.config)
        assert (alone.run_id, alone.order) == (run.run_id, run.order), "its seed's own order"
