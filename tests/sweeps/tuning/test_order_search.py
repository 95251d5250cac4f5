"""The search for an order by validation data: what it tries, what that costs, what it chooses.

The searches run in this process, by the workers' own code without Ray, in tenths of a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from cl_platform.results.result import Result
from sweeps.api import preview, sweep
from sweeps.tuning.choice import groups
from tests.helpers.sweep_runs import PLANNER
from tests.helpers.sweep_search import BASE, ER, FOUR, WHOLE, Searched, alone, spec

METHODS = pytest.mark.parametrize("method", ["mcts", "halving"])


# --- what it costs


@pytest.mark.system
@METHODS
@pytest.mark.parametrize(
    ("budget", "seeds"),
    [(4, [0]), (10, [0]), (25, [0]), (1000, [0]), (12, [0, 1, 2]), (40, [0, 1, 2])],
    ids=str,
)
def test_the_budget_is_kept(tmp_path: Path, method: str, budget: int, seeds: list[int]) -> None:
    found = Searched(tmp_path, spec({"method": method, "budget": budget}, seeds))
    tally = found.phase.tally
    assert 0 < tally.trained <= budget
    assert tally.trained == tally.distinct, "what was asked for, each once"
    whole = [order for order in found.tried if len(order) == 4]
    assert found.best in whole
    assert tally.trained <= WHOLE * len(seeds)
    if method == "mcts":
        assert set(found.tried) == set(whole)
        assert tally.trained == len({o[:k] for o in whole for k in range(1, 5)}) * len(seeds)


@pytest.mark.system
@METHODS
@pytest.mark.parametrize(("budget", "keep"), [(64, "all"), (25, "branches"), (64, "branches")])
def test_no_more_is_trained_than_is_said(
    tmp_path: Path, method: str, budget: int, keep: str
) -> None:
    log = tmp_path / "log"
    base = {"strategy": {"name": "tests.helpers.sweep_strategies:Noted", "log": str(log)}}
    given = spec({"method": method, "budget": budget}, base=base, keep_states=keep)
    found = Searched(tmp_path / "out", given)
    assert len(log.read_text().splitlines()) == found.phase.tally.trained <= budget


@METHODS
def test_each_group_has_the_budget_for_itself(tmp_path: Path, method: str) -> None:
    axes = {"strategy": ["finetune", ER]}
    found = Searched(tmp_path, spec({"method": method, "budget": 12}, axes=axes))
    names = [choice.group for choice in found.chosen]
    assert names == [{"strategy": "finetune"}, {"strategy": "er"}]
    assert 12 < found.phase.tally.trained <= 24
    for choice, strategy in zip(found.chosen, axes["strategy"], strict=True):
        given = spec({"method": method, "budget": 12}, axes={"strategy": [strategy]})
        (alone,) = Searched(tmp_path / "alone", given).chosen
        assert (alone.config, alone.objective) == (choice.config, choice.objective)
    for trial in found.phase.trials:
        assert trial["group"] in names


# --- what it chooses


def test_with_room_for_all_orders_the_tree_search_is_brute_force(tmp_path: Path) -> None:
    found = Searched(tmp_path, spec({"method": "mcts", "budget": WHOLE}))
    assert sorted(found.tried) == FOUR
    assert found.phase.tally.trained == WHOLE
    for order in FOUR[::6]:
        assert found.tried[order] == pytest.approx(alone(order, 0), abs=1e-12)
    assert found.tried[found.best] == max(found.tried.values()) == found.chosen[0].objective


def test_the_worst_order_is_best_with_mode_min(tmp_path: Path) -> None:
    found = Searched(tmp_path, spec({"method": "mcts", "budget": WHOLE, "mode": "min"}))
    assert found.tried[found.best] == min(found.tried.values()) == found.chosen[0].objective
    low = Searched(tmp_path, spec({"method": "halving", "budget": 40, "mode": "min"}))
    last = {o: v for o, v in low.tried.items() if len(o) == 4}
    assert low.chosen[0].objective == min(last.values())


@METHODS
def test_the_objective_is_the_mean_over_the_seeds(tmp_path: Path, method: str) -> None:
    found = Searched(tmp_path, spec({"method": method, "budget": 30}, [3, 1]))
    for prefix, value in list(found.tried.items())[:4]:
        n = len(prefix)
        mean = (alone(prefix, 1, n) + alone(prefix, 3, n)) / 2
        assert value == pytest.approx(mean, abs=1e-12)
    (choice,) = found.chosen
    assert choice.seeds == 2
    assert choice.objective == found.tried[found.best]
    assert {run.config.seed for run in found.phase.runs} == {1, 3}


@METHODS
def test_another_metric_is_looked_at_if_it_is_asked_for(tmp_path: Path, method: str) -> None:
    tune = {"method": method, "budget": 20, "metric": "learning_accuracy"}
    found = Searched(tmp_path, spec(tune))
    result = execute(make_plan(found.chosen[0].config), None)
    expected = result.metrics["validation/learning_accuracy"]
    assert found.chosen[0].objective == pytest.approx(expected, abs=1e-12)


@METHODS
def test_the_same_search_again_trains_nothing_and_chooses_the_same(
    tmp_path: Path, method: str
) -> None:
    given = spec({"method": method, "budget": 25}, [0, 1])
    first, again = Searched(tmp_path, given), Searched(tmp_path, given)
    assert again.phase.tally.trained == 0
    assert again.phase.tally.known == first.phase.tally.trained
    assert again.tried == first.tried
    assert again.chosen[0].config == first.chosen[0].config
    assert again.chosen[0].objective == first.chosen[0].objective


@METHODS
def test_the_seed_of_the_sweep_decides_what_is_tried(tmp_path: Path, method: str) -> None:
    tune = {"method": method, "budget": 20}
    firsts = [Searched(tmp_path / str(s), spec(tune, seed=s)).tried for s in (0, 1, 0)]
    assert list(firsts[0]) != list(firsts[1])
    assert firsts[0] == firsts[2]
    assert list(firsts[0]) == list(firsts[2])


def test_a_larger_budget_keeps_what_a_smaller_one_tries_first(tmp_path: Path) -> None:
    small = list(Searched(tmp_path, spec({"method": "mcts", "budget": 20})).tried)
    large = list(Searched(tmp_path, spec({"method": "mcts", "budget": 50})).tried)
    assert len(large) > len(small)
    assert set(small) <= set(large)


# --- halving


@pytest.mark.system
@pytest.mark.parametrize(
    ("budget", "grace"), [(10, 2), (25, 2), (25, 1), (64, 2), (64, 3), (40, 9)]
)
def test_each_rung_is_half_of_the_one_before(tmp_path: Path, budget: int, grace: int) -> None:
    found = Searched(tmp_path, spec({"method": "halving", "budget": budget, "grace": grace}))
    rungs: dict[int, list[tuple[int, ...]]] = {}
    for prefix in found.tried:
        rungs.setdefault(len(prefix), []).append(prefix)
    assert list(rungs) == list(range(min(grace, 4), 5))
    for k in range(min(grace, 4) + 1, 5):
        before, here = rungs[k - 1], rungs[k]
        assert len(here) == math.ceil(len(before) / 2)
        # The better half goes on, each by a single experience.
        kept = sorted(before, key=lambda p: -found.tried[p])[: len(here)]
        assert sorted(p[:-1] for p in here) == sorted(kept)
    assert found.best in rungs[4]
    assert found.chosen[0].objective == max(found.tried[p] for p in rungs[4])


def test_what_was_tried_last_stands_for_its_beginning_in_the_record(tmp_path: Path) -> None:
    found = Searched(tmp_path, spec({"method": "halving", "budget": 40}))
    whole = {run.order for run in found.phase.runs if run.whole}
    assert whole == {o for o in found.tried if len(o) == 4}
    assert all(Result.load(tmp_path / "runs" / r.run_id) for r in found.phase.runs if r.whole)
    results = {p.parent.name for p in tmp_path.glob("runs/*/result.json")}
    assert results == {run.run_id for run in found.phase.runs if run.whole}


# --- runs that fail


class FailsLate(Strategy):
    """Its loss is not a number where an experience comes third or later."""

    which: int = 0

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))

    def begin_experience(self, experience: Experience) -> None:
        self.learned += 1
        self.bad = experience.task == self.which and self.learned >= 3

    def loss(self, batch: Batch) -> torch.Tensor:
        return (float("nan") if self.bad else 1.0) * super().loss(batch)


LATE = {"strategy": {"name": f"{__name__}:FailsLate"}}


@pytest.fixture(scope="module", params=["mcts", "halving"])
def late(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Searched]:
    """Makes a search among orders that fail, again and again in one folder."""
    folder = tmp_path_factory.mktemp("late")
    given = spec({"method": request.param, "budget": 40}, base=LATE)
    return functools.cache(lambda time: Searched(folder, given))


def test_orders_that_fail_are_passed_over(late: Callable[[int], Searched]) -> None:
    found = late(1)
    whole = {o: v for o, v in found.tried.items() if len(o) == 4}
    sound = {o: v for o, v in whole.items() if v is not None}
    assert sound
    assert all((0 in o[:2]) == (o in sound) for o in whole)
    assert found.chosen[0].objective == sound[found.best] == max(sound.values())
    assert {e.partition(", step")[0] for e in found.phase.errors.values()} <= {
        "failed at experience 3 of 4",
        "failed at experience 4 of 4",
    }
    assert found.phase.tally.trained <= 40


def test_after_a_failure_the_same_search_chooses_the_same(late: Callable[[int], Searched]) -> None:
    first, again = late(1), late(2)
    assert again.phase.tally.trained == 0
    assert again.tried == first.tried
    assert again.best == first.best


def test_no_run_is_done_and_failed_at_a_time(late: Callable[[int], Searched]) -> None:
    phase = late(1).phase
    assert phase.tally.failed > 0
    assert not phase.done & phase.errors.keys()
    assert phase.tally.done + phase.tally.failed == phase.tally.runs


# --- faults


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"axes": {"curriculum": ["all"]}}, "searches the curriculum: give none in base"),
        ({"base": {"curriculum": "reverse"}}, "searches the curriculum: give none in base"),
        ({"tune": {"experiences": 3}}, "with tune.experiences=3: give all"),
        ({"axes": {"lr": [0.1, 0.2]}}, "it chooses orders, and er has other values to choose"),
        ({"axes": {"lr": {"uniform": [0.1, 0.2]}}}, "er has other values to choose; tune those"),
        ({"axes": {"epochs": [1, 2]}}, "or name what is compared in tune.per"),
        ({"tune": {"budget": 3}}, "tune.budget=3 is not even one order of 4 experiences with 1"),
        ({"axes": {"seed": [0, 1]}, "tune": {"budget": 7}}, "with 2 seeds; give 8 or more"),
        ({"tune": {"budget": 0}}, "tune.budget=0: input should be greater than 0"),
        ({"tune": {"metric": "acuracy"}}, "tune.metric=acuracy:"),
        ({"base": {"stream": "split-digits"}}, "stream 'split-digits' has no validation data"),
        ({"budget": {"experiences": 5}}, "the sweep has 10 experiences, above budget.experiences"),
    ],
    ids=str,
)
@METHODS
def test_faults_are_one_line_before_anything_starts(
    tmp_path: Path, method: str, given: dict[str, Any], message: str
) -> None:
    data = {
        **given,
        "base": {**BASE, **given.get("base", {})},
        "tune": {"method": method, "budget": 10, **given.get("tune", {})},
    }
    for act in (sweep, preview):
        with pytest.raises(BadInput) as caught:
            act(data, tmp_path / "out")
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_what_is_compared_may_be_named(tmp_path: Path) -> None:
    axes = {"lr": [0.02, 0.05]}
    given = spec({"method": "mcts", "budget": 10, "per": ["lr"]}, axes=axes)
    assert [group.names for group in groups(given, PLANNER)] == [{"lr": "0.02"}, {"lr": "0.05"}]
    found = Searched(tmp_path, given)
    assert [choice.config.optimizer.lr for choice in found.chosen] == [0.02, 0.05]


def test_a_preview_says_what_it_costs_at_most(tmp_path: Path) -> None:
    given = spec({"method": "mcts", "budget": 10}, axes={"strategy": ["finetune", ER]})
    found = preview(given, tmp_path / "out")
    assert (found.tally.experiences, found.tally.distinct) == (20, 20)
    assert not (tmp_path / "out").exists()
