"""Tuning by a policy: all schedules of some seeds, a policy of them, and other seeds to judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.models.policy import read_policy
from sweeps.api import preview
from sweeps.planning import Run, plan_runs
from sweeps.record import Phase
from sweeps.spec import SweepSpec, parse_spec
from sweeps.tuning import choice, policy_search
from sweeps.tuning.choice import Choice
from sweeps.tuning.schedule_search import schedules
from sweeps.tuning.schedule_table import ScheduleTable
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER

SMALL = {"memory_size": 4, "history": 4, "every_class": False}
BASE = {
    "stream": {
        "name": "split-digits",
        "experiences": 4,
        "samples": 30,
        "validation": 0.3,
    },
    "model": {"name": "mlp", "hidden": [10]},
    "strategy": {"name": "scheduled-replay", **SMALL},
    "epochs": 6,
    "optimizer": {"lr": 0.1},
}
LEARNING = {"episodes": 400, "hidden": 64, "rate": 1e-3}
TREE = 1 + 1 + 3 + 30  # states of all schedules of four experiences


def spec(**more: Any) -> SweepSpec:
    base = {**BASE, **more.pop("base", {})}
    axes = {"seed": [0, 1], **more.pop("axes", {})}
    tune = {"method": "policy", "policy": LEARNING, **more.pop("tune", {})}
    return parse_spec({"base": base, "axes": axes, "tune": tune, "final": {"seeds": 1}, **more})


class Learned:
    """A policy that is learned in this process, without Ray."""

    def __init__(self, out: Path) -> None:
        self.spec, self.out = spec(), out
        self.runs = plan_runs(self.spec, PLANNER)
        self.phase = Phase("tune", self.runs)
        self.driver = Here(self.spec, out, PLANNER)
        self.driver.carry_out(self.phase)
        self.choice = self.again()
        self.policy = read_policy(self.path)

    def again(self) -> Choice:
        (one,) = policy_search.learn(self.spec, self.phase, self.out)
        return one

    @property
    def path(self) -> Path:
        return Path(self.choice.config.strategy["policy"])

    @property
    def tables(self) -> dict[int, ScheduleTable]:
        return policy_search._tables(self.phase, self.runs, self.out)

    def final(self) -> list[Run]:
        assert self.spec.final is not None
        return choice.final_runs(self.spec.final, [self.choice], self.runs, PLANNER)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return Learned(tmp_path_factory.mktemp("policy"))


def test_every_beginning_of_a_schedule_is_trained_once(learned: Learned) -> None:
    tally = learned.phase.tally
    assert (tally.runs, tally.done, tally.failed) == (2 * 30, 60, 0)
    assert tally.trained == tally.distinct == 2 * TREE
    assert [len(table.rows) for table in learned.tables.values()] == [TREE + 1] * 2


def test_the_rows_of_the_table_are_those_of_runs_made_alone(learned: Learned) -> None:
    for number in (0, 13, 29):
        schedule = [list(shares) for shares in list(schedules(4))[number]]
        strategy = {**BASE["strategy"], "schedule": schedule}
        config = parse_config({**BASE, "strategy": strategy, "seed": 1})
        rows = execute(make_plan(config), None).validation["seen"].values
        beginning = (0, 0, number // 10, number % 10)
        for k in range(1, 5):
            assert learned.tables[1].rows[beginning[:k]] == tuple(rows[k, :k])


def test_on_the_seeds_learned_from_it_is_as_good_as_the_best_schedules(learned: Learned) -> None:
    assert [trial["values"] for trial in learned.phase.trials[:2]] == [{"seed": 0}, {"seed": 1}]
    for trial in learned.phase.trials[:2]:
        assert trial["random"] < 0.97 * trial["best"], "schedules matter"
        assert trial["objectives"][0] <= trial["best"]
    reached = sum(trial["objectives"][0] for trial in learned.phase.trials[:2])
    assert learned.choice.objective == pytest.approx(reached / 2)
    assert reached >= 0.99 * sum(trial["best"] for trial in learned.phase.trials[:2])
    line = policy_search.about(learned.phase.trials[:2])
    assert line.startswith("validation accuracy after each experience, on the 2 seeds learned from")


def test_a_run_by_the_policy_walks_the_way_through_the_table(learned: Learned) -> None:
    for seed, table in learned.tables.items():
        schedule = table.follow(learned.policy.choose)
        config = learned.choice.config.model_copy(update={"seed": seed})
        rows = execute(make_plan(config), None).validation["seen"].values
        for k in range(1, 5):
            assert table.rows[schedule[:k]] == tuple(rows[k, :k])


def test_the_final_runs_have_seeds_that_nothing_was_learned_from(learned: Learned) -> None:
    final = Phase("final", learned.final())
    assert [run.config.seed for run in final.runs] == [2]
    assert final.runs[0].config.strategy["policy"] == str(learned.path)
    learned.driver.carry_out(final)
    assert final.tally.done == 1
    assert not final.errors


def test_what_was_learned_before_is_not_learned_again(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = learned.path.read_bytes()

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("learned again")

    with monkeypatch.context() as patched:
        patched.setattr(policy_search, "learn_policy", refused)
        assert learned.again().config == learned.choice.config
    learned.path.write_bytes(before[:-9])  # damaged: learned again, with the same bits
    assert learned.again().config == learned.choice.config
    assert learned.path.read_bytes() == before


def test_a_preview_counts_the_states_of_all_schedules(tmp_path: Path) -> None:
    found = preview(spec(), tmp_path)
    assert (found.tally.runs, found.tally.distinct) == (2 * 30, 2 * TREE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"strategy": "er"}}, "learns the schedules of strategy scheduled-replay"),
        (
            {"base": {"strategy": {**BASE["strategy"], "schedule": [[], [1], [1, 0], [1, 0, 0]]}}},
            "give that one, without schedule or policy",
        ),
        (
            {"base": {"stream": {**BASE["stream"], "validation": 0}}},
            "has no validation data, and tuning must not use test data",
        ),
        (
            {"base": {"stream": {**BASE["stream"], "experiences": [2, 2, 2, 2, 1, 1]}}},
            "of which 6 experiences have 132,300: give a stream of 5 experiences at most",
        ),
        ({"axes": {"lr": [0.1, 0.2]}}, "learns one policy from the seeds of one setting"),
        ({"final": {"seeds": [5, 1]}}, "final.seeds: the policy learns on [1]"),
        ({"tune": {"metric": "forgetting"}}, "tune.metric=forgetting, tune.mode=min: its reward"),
        ({"tune": {"experiences": 3}}, "tune.experiences=3: give all"),
        ({"tune": {"policy": {"episodes": 0}}}, "tune.policy.episodes=0"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_no_policy_can_be_learned_from_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClpError) as caught:
        preview(spec(**changes), tmp_path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_failed_schedule_leaves_no_policy(learned: Learned, tmp_path: Path) -> None:
    run = learned.runs[7]
    phase = Phase("tune", [run], errors={run.run_id: "loss is nan"})
    with pytest.raises(ClpError, match=r"tune: schedule \[.*\] failed, so no policy: loss is nan"):
        policy_search.learn(learned.spec, phase, tmp_path)
