"""Tables of schedules, their optimum, and policies that are learned from them."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from cl_platform.errors import BadInput
from cl_platform.models.policy import Policy
from sweeps.tuning.schedule_policy import learn_policy, walk_of
from sweeps.tuning.schedule_search import actions
from sweeps.tuning.schedule_table import Beginning, ScheduleTable

LEARNING = {"episodes": 400, "hidden": 64, "rate": 1e-3}


def made(n: int, seed: int) -> ScheduleTable:
    """A table in which what is not replayed is forgotten, with noise."""
    rng = random.Random(seed)
    rows: dict[Beginning, tuple[float, ...]] = {(): ()}

    def grow(beginning: Beginning) -> None:
        for number, shares in enumerate(actions(len(beginning))):
            kept = zip(rows[beginning], shares, strict=True)
            old = (a - 0.15 + 0.2 * share + rng.gauss(0, 0.05) for a, share in kept)
            rows[(*beginning, number)] = (*old, 0.9 + rng.gauss(0, 0.02))
            if len(beginning) + 1 < n:
                grow((*beginning, number))

    grow(())
    return ScheduleTable(n, rows)


def brute_force(table: ScheduleTable) -> dict[Beginning, float]:
    """The sum of the mean accuracies after each experience, of every schedule."""
    numbers = [range(len(actions(k))) for k in range(table.n_experiences)]
    return {
        s: sum(sum(row) / len(row) for row in (table.rows[s[:k]] for k in range(1, len(s) + 1)))
        for s in product(*numbers)
    }


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_optimum_of_dynamic_programming_is_that_of_brute_force(n: int) -> None:
    table = made(n, n)
    every = brute_force(table)
    assert len(every) == [1, 1, 3, 30, 1050][n - 1]
    assert len(table.rows) == 1 + sum([1, 1, 3, 30, 1050][:n])
    assert every[table.best()] == max(every.values())
    assert table.total(table.best()) == pytest.approx(max(every.values()), abs=1e-12)


def test_random_actions_give_their_expectation() -> None:
    # Every schedule of four experiences is as likely as any other.
    every = brute_force(made(4, 0))
    assert made(4, 0).average() == pytest.approx(sum(every.values()) / len(every))


@pytest.mark.parametrize("gone", [(0,), (0, 0, 1), (0, 0, 2, 9)], ids=str)
def test_a_table_with_a_hole_is_refused(gone: Beginning) -> None:
    rows = {b: row for b, row in made(4, 0).rows.items() if b != gone}
    with pytest.raises(BadInput, match=rf"no row \[{', '.join(map(str, gone))}\]"):
        ScheduleTable(4, rows)


def test_a_row_of_another_length_is_a_hole() -> None:
    table = made(3, 0)
    with pytest.raises(BadInput, match=r"no row \[0, 0\]"):
        ScheduleTable(3, {**table.rows, (0, 0): (0.5,)})


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_is_better_than_the_optimum(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = Policy([actions(k) for k in range(4)], 8)
    table = made(4, seed)
    schedule = table.follow(untrained.choose)
    assert table.total(schedule) <= table.total(table.best())
    assert schedule in brute_force(table)


def test_the_graph_of_the_tables_leads_where_the_tables_lead() -> None:
    tables = [made(4, 0), made(4, 1)]
    walk = walk_of(tables)
    assert len(walk.states) == sum(len(table.rows) for table in tables) == 2 * 36
    for node, table in zip(walk.starts, tables, strict=True):
        at = node
        for schedule in ((0, 0), (0, 0, 2), (0, 0, 2, 7)):
            if len(schedule) > 2:
                at = walk.first[at] + schedule[-1]
                assert walk.rewards[at] == pytest.approx(table.reward(schedule))
            assert walk.choices[at] == [3, 10, 0][len(schedule) - 2]
            if len(schedule) < 4:
                state = [*table.rows[schedule], 0.0, 0.0][:3]
                assert walk.states[at].tolist() == pytest.approx(state)


@pytest.mark.parametrize("seed", range(2))
def test_a_policy_reaches_99_percent_of_the_optimum_where_it_learned(seed: int) -> None:
    table = made(4, seed)
    policy = learn_policy([table], **LEARNING, seed=seed)  # type: ignore[arg-type]
    reached, best = table.total(table.follow(policy.choose)), table.total(table.best())
    assert table.average() < 0.985 * best, "it takes some learning"
    assert 0.99 * best <= reached <= best


def test_a_policy_of_several_environments_beats_chance_in_each_of_them() -> None:
    tables = [made(4, seed) for seed in (0, 1, 2)]
    policy = learn_policy(tables, **LEARNING)  # type: ignore[arg-type]
    for table in tables:
        assert table.total(table.follow(policy.choose)) > table.average()


def test_the_same_seed_gives_the_same_policy_whatever_was_drawn_before() -> None:
    def learned(seed: int) -> bytes:
        few = {**LEARNING, "episodes": 20}
        return learn_policy([made(3, 0)], **few, seed=seed).sealed()  # type: ignore[arg-type]

    first = learned(0)
    torch.rand(3)
    before = torch.random.get_rng_state()
    assert learned(0) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert learned(1) != first


@pytest.mark.parametrize("n", [1, 2])
def test_where_nothing_is_to_be_chosen_there_is_a_policy_all_the_same(n: int) -> None:
    policy = learn_policy([made(n, 0)], episodes=3, hidden=4)
    assert made(n, 0).follow(policy.choose) == (0,) * n
