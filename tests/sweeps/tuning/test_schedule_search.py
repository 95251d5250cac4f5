"""Replay scheduling: the space of schedules, the search over it, and what the search shares."""

from __future__ import annotations

import math
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.scheduled_replay import counts
from sweeps.tuning.schedule_search import (
    ReplaySchedule,
    actions,
    schedules,
    search_schedule,
    tree_search,
)
from sweeps.tuning.tree_search import Node
from tests.conftest import ROOT
from tests.helpers.replay import with_replay

VALIDATED = {"name": "split-digits", "experiences": 3, "scenario": "task", "validation": 0.15}


def equal_schedule(n_experiences: int) -> ReplaySchedule:
    """The same share for every past experience at any time."""
    return tuple(tuple(1 / k for _ in range(k)) for k in range(n_experiences))


@pytest.mark.parametrize(("past", "number"), list(enumerate([1, 1, 3, 10, 35, 126, 462, 1716])))
def test_the_number_of_actions(past: int, number: int) -> None:
    found = actions(past)
    assert len(set(found)) == len(found) == number
    assert all(len(a) == past and math.isclose(sum(a), 1) for a in found if past)


def test_the_number_of_schedules() -> None:
    assert [len(list(schedules(n))) for n in (1, 2, 3, 4, 5)] == [1, 1, 3, 30, 1050]
    assert all(equal_schedule(n) in set(schedules(n)) for n in (2, 3, 4))


@pytest.mark.parametrize(
    ("shares", "size", "dealt"),
    [
        ([1.0], 10, [10]),
        ([1, 1, 1], 10, [4, 3, 3]),
        ([0.5, 0.5], 5, [3, 2]),
        ([0, 1], 10, [0, 10]),
        ([2 / 3, 1 / 3], 3, [2, 1]),
        ([0, 0], 10, [0, 0]),
        ([], 10, []),
    ],
)
def test_shares_are_dealt_out_to_the_last_place(shares: list, size: int, dealt: list) -> None:
    assert counts(shares, size) == dealt


def made_up(schedule: tuple) -> float:
    """A reward that prefers the latest experiences, but not at the very end."""
    return sum(a * (i + 1) for shares in schedule[:-1] for i, a in enumerate(shares)) - sum(
        a * i for i, a in enumerate(schedule[-1])
    )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_search_of_the_whole_tree_is_brute_force_and_tries_nothing_twice(n: int) -> None:
    tried = list(tree_search(made_up, n, iterations=10_000))
    assert sorted(s for s, _ in tried) == sorted(schedules(n))
    assert max(r for _, r in tried) == max(map(made_up, schedules(n)))


def test_a_search_beats_random_choice_on_average() -> None:
    everything = list(schedules(5))
    ours, theirs = [], []
    for seed in range(20):
        ours.append(max(r for _, r in tree_search(made_up, 5, iterations=60, seed=seed)))
        theirs.append(max(map(made_up, random.Random(seed).sample(everything, 60))))
    assert sum(ours) > sum(theirs)


def test_on_three_tasks_the_search_equals_brute_force_and_shares_prefixes(tmp_path: Path) -> None:
    found = search_schedule(VALIDATED, iterations=20, out=tmp_path, epochs=2)
    by_hand = {}
    for schedule in schedules(3):
        strategy = {"name": "scheduled-replay", "schedule": [list(a) for a in schedule]}
        metrics = clp.run(VALIDATED, strategy, epochs=2, out=None).metrics
        by_hand[schedule] = metrics["validation/average_accuracy"]
    assert found.rewards == by_hand
    assert found.rewards[found.schedule] == max(by_hand.values())
    assert found.rewards[found.schedule] >= found.rewards[equal_schedule(3)]
    # Three schedules differ in the last experience only: 2 shared states and 3 of their own. The
    # run that tells the number of experiences has its own three, as "equal" is no list.
    assert len(list(tmp_path.glob("states/*/*.pt"))) == 2 + 3 + 3


def test_a_stream_without_validation_data_is_refused() -> None:
    with pytest.raises(clp.ClpError, match=r"no validation data.*validation=0"):
        search_schedule("split-digits", iterations=1)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([[], [1]], "strategy.schedule has 2 items, but the stream has 3 experiences"),
        ([[], [1], [1]], r"item 2 is \[1\.0\]: expected 2 proportions"),
        ([[], [-1], [1, 0]], "greater than or equal to 0"),
        ([[], [1], [float("inf"), 0]], "finite number"),
        ("often", "should be 'equal'"),
    ],
)
def test_a_wrong_schedule_is_refused_before_training(schedule: object, message: str) -> None:
    with pytest.raises(clp.ClpError, match=message):
        clp.run(VALIDATED, {"name": "scheduled-replay", "schedule": schedule}, out=None)


def test_the_memory_of_an_experience_is_what_the_schedule_says() -> None:
    strategy = {"name": "scheduled-replay", "schedule": [[], [1], [0.25, 0.75]], "memory_size": 8}
    fold = Fold(
        make_plan(parse_config({"stream": VALIDATED, "strategy": strategy})),
        StateStore(None),
        Trackers(),
    )
    for _ in fold.plan.steps:
        fold.train()
    replayed = fold.strategy.stored.read(fold.strategy.rows)
    assert [int((replayed.task == t).sum()) for t in range(3)] == [2, 6, 0]
    # What is stored of an experience is spread over its classes: ten samples of four classes.
    first = fold.strategy.stored.read(fold.strategy.stored.group(0)).y
    assert sorted(first.bincount().tolist()) == [2, 2, 3, 3]


def test_every_step_trains_on_the_whole_memory() -> None:
    strategy = {"name": "scheduled-replay", "memory_size": 6}
    plan = make_plan(parse_config({"stream": VALIDATED, "strategy": strategy}))
    fold = Fold(plan, StateStore(None), Trackers())
    for _ in fold.plan.steps:
        fold.train()
    ours, batch = fold.strategy, next(fold.strategy.batches(fold.plan.steps[2].experience, 7))
    old = ours.stored.read(ours.rows)
    assert len(old) == 6
    logits = ours(torch.cat([batch.x, old.x]), torch.cat([batch.task, old.task]))
    expected = torch.nn.functional.cross_entropy(logits, torch.cat([batch.y, old.y]))
    whole = with_replay(ours, batch)
    assert whole.replayed == 6
    assert ours.loss(whole).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_node_is_valued_by_the_best_below_it_and_by_how_rarely_it_was_visited() -> None:
    node = Node(visits=2, best=0.7)
    assert node.value(8, exploration=0.1) == pytest.approx(
        0.7 + 0.1 * math.sqrt(2 * math.log(8) / 2)
    )
    assert node.value(8, exploration=0.0) == 0.7


def test_a_key_depends_on_the_schedule_up_to_its_place_only() -> None:
    def keys(schedule: list) -> tuple[str, ...]:
        strategy = {"name": "scheduled-replay", "schedule": schedule}
        return make_plan(parse_config({"stream": VALIDATED, "strategy": strategy})).keys

    a, b = keys([[], [1], [1, 0]]), keys([[], [1], [0, 1]])
    assert a[:3] == b[:3]
    assert a[3] != b[3]


def test_a_schedule_inside_a_wrapper_counts_as_well() -> None:
    def plan(schedule: list) -> Any:
        inner = {"name": "scheduled-replay", "schedule": schedule}
        data = {"stream": VALIDATED, "strategy": {"name": "refresh", "inner": inner}}
        return make_plan(parse_config(data))

    a, b = plan([[], [1], [1, 0]]).keys, plan([[], [1], [0, 1]]).keys
    assert a[:3] == b[:3]
    assert a[3] != b[3]
    with pytest.raises(clp.ClpError, match=r"strategy\.inner\.schedule has 2 items"):
        plan([[], [1]])


def test_weights_given_per_experience_share_prefixes_too() -> None:
    def keys(alpha: object) -> tuple[str, ...]:
        data = {"stream": VALIDATED, "strategy": {"name": "lwf", "alpha": alpha}}
        return make_plan(parse_config(data)).keys

    a, b = keys([0, 1, 2]), keys([0, 1, 3])
    assert a[:3] == b[:3]
    assert a[3] != b[3]
    assert keys(1.0)[0] != a[0]


@pytest.mark.slow
def test_the_example_of_a_search_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = ROOT / "examples" / "replay_schedule.py"
    runpy.run_path(str(example), run_name="__main__")
    assert "searched" in capsys.readouterr().out
