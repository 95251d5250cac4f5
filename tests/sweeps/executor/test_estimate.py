"""Estimates: distinct steps are counted, and each kind of run is tried once, without a trace."""

from __future__ import annotations

import pytest
import torch

from cl_platform.config.run_config import parse_config
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from sweeps.executor import estimate
from sweeps.planning import plan_runs
from tests.helpers.sweep_runs import PLANNER, planned, spec


def test_an_estimate_counts_distinct_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (1.0, 100.0))
    # 12 samples in batches of 5, five and seven, or as many as there are: 2 or 3, twice.
    runs = planned({"curriculum": ["all"]}, base={"batch_size": 6, "epochs": 2})
    assert estimate.estimate(runs[:1], PLANNER) == 5 * (2 * 2 * 1 + 100)
    assert estimate.estimate(runs, PLANNER) == 325 * (2 * 2 * 1 + 100)
    assert estimate.estimate(planned(tune={"experiences": 2}), PLANNER) == 2 * (2 + 100)
    assert estimate.estimate([], PLANNER) == 0


@pytest.mark.parametrize(("every", "evaluations"), [(0, 1), (1, 6), (2, 3), (5, 2), (6, 1)])
def test_an_estimate_counts_evaluations_within_experiences(
    monkeypatch: pytest.MonkeyPatch, every: int, evaluations: int
) -> None:
    """Each experience has 6 steps; what is due after the last of them is its end."""
    monkeypatch.setattr(estimate, "pace", lambda plan: (0.0, 1.0))
    runs = planned(base={"batch_size": 6, "epochs": 3, "evaluate_every": every})
    assert estimate.estimate(runs, PLANNER) == 5 * evaluations


def test_an_estimate_counts_the_rows_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (0.0, 1.0))
    assert estimate.estimate(planned(base={"evaluate": 2}), PLANNER) == 3  # after 2, 4 and 5
    assert estimate.estimate(planned(base={"evaluate": "last"}), PLANNER) == 1


def test_an_estimate_knows_what_a_step_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (1.0, 0.0))
    base = {"batch_size": 6, "strategy": "cumulative"}
    assert estimate.estimate(planned(base=base), PLANNER) == 2 * (1 + 2 + 3 + 4 + 5)


def test_an_estimate_has_the_epochs_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (1.0, 0.0))
    runs = planned(base={"batch_size": 6, "epochs": [4, 1]})
    assert estimate.estimate(runs, PLANNER) == 2 * (4 + 1 + 1 + 1 + 1)


def test_each_kind_of_run_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def pace(plan: Plan) -> tuple[float, float]:
        tried.append(plan.config.strategy["name"])
        return 1.0, 1.0

    monkeypatch.setattr(estimate, "pace", pace)
    axes = {"strategy": ["er", "finetune"], "curriculum": ["as_given", "reverse"], "seed": [0, 1]}
    estimate.estimate(planned(axes), PLANNER)
    assert sorted(tried) == ["er", "finetune"]


@pytest.mark.parametrize("strategy", ["finetune", "joint", "cumulative", "er"])
def test_a_trial_is_short_and_leaves_no_trace(strategy: str) -> None:
    threads = torch.get_num_threads()
    plan = make_plan(parse_config({"stream": "split-digits", "strategy": strategy, "epochs": 50}))
    per_batch, per_evaluation = estimate.pace(plan)
    assert 0 < per_batch < 1
    assert 0 < per_evaluation < 1
    assert plan.config.epochs == 50
    assert len(plan.steps[0].experience.train) > 120
    assert torch.get_num_threads() == threads


def test_an_estimate_for_a_gpu_that_is_elsewhere_is_no_traceback() -> None:
    planner = Planner(check_device=False)
    runs = plan_runs(spec(resources={"gpus": 1}), planner)
    assert estimate.estimate(runs, planner) is None
