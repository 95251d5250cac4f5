"""The tree search: every sequence once, in batches or one by one, and where it looks first."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sweeps.tuning.tree_search import TreeSearch

Order = tuple[int, ...]


def orders(n: int) -> Callable[[Order], Sequence[int]]:
    """The moves that make permutations of n items."""
    return lambda prefix: [i for i in range(n) if i not in prefix]


def worth(order: Order) -> float:
    """A reward that like orders share: the first item counts most."""
    return sum(item / 10**place for place, item in enumerate(order)) / len(order)


def run(search: TreeSearch[Any], reward: Callable[[Any], float], batch: int = 1) -> list[Any]:
    """What is proposed until nothing is left, told batch by batch."""
    found: list[Any] = []
    while True:
        wave: list[Any] = []
        while len(wave) < batch and (sequence := search.propose()) is not None:
            wave.append(sequence)
        if not wave:
            return found
        for sequence in wave:
            search.record(sequence, reward(sequence))
        found += wave


@pytest.mark.parametrize("n", [1, 2, 4, 5])
@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_to_the_end_it_is_every_order_once(n: int, batch: int) -> None:
    found = run(TreeSearch(orders(n)), worth, batch)
    assert len(found) == math.factorial(n)
    assert sorted(found) == sorted(permutations(range(n)))
    assert max(map(worth, found)) == max(map(worth, permutations(range(n))))


def test_what_is_exhausted_stays_exhausted() -> None:
    search = TreeSearch(orders(3))
    assert len(run(search, worth)) == 6
    assert [search.propose() for _ in range(3)] == [None] * 3


def test_nothing_has_to_be_told() -> None:
    search = TreeSearch(orders(4))
    assert len({search.propose() for _ in range(24)}) == 24
    assert search.propose() is None


def test_what_comes_late_is_taken_in_all_the_same() -> None:
    search = TreeSearch(orders(4), seed=3)
    told_late = [search.propose() for _ in range(10)]
    some = [search.propose() for _ in range(4)]
    for order in [*reversed(some), *told_late]:  # in whatever order they end
        assert order is not None
        search.record(order, worth(order))
    rest = run(search, worth, 3)
    assert sorted([*told_late, *some, *rest]) == sorted(permutations(range(4)))


@pytest.mark.parametrize("reward", [-math.inf, 0.0, -5.0, 1e9])
def test_equal_rewards_and_failures_stop_nothing(reward: float) -> None:
    assert len(set(run(TreeSearch(orders(4)), lambda order: reward, 4))) == 24


def test_a_reward_that_is_minus_infinity_here_and_there_leaves_the_best_to_be_found() -> None:
    def failing(order: Order) -> float:
        return -math.inf if order[0] % 2 else worth(order)

    assert max(run(TreeSearch(orders(4)), failing, 4), key=failing)[0] == 2


def tree(rng: random.Random, depth: int) -> dict[int, Any]:
    """A random tree whose leaves are at different depths."""
    width = rng.randrange(1, 4) if depth else 0
    return {
        move: tree(rng, depth - rng.randrange(1, 3)) if depth > 1 else {} for move in range(width)
    }


def leaves(node: dict[int, Any], prefix: Order = ()) -> list[Order]:
    if not node:
        return [prefix]
    return [leaf for move, below in node.items() for leaf in leaves(below, (*prefix, move))]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 3))
def test_sequences_of_any_lengths_are_all_proposed_once(seed: int, batch: int, c: int) -> None:
    made = tree(random.Random(seed), 4)

    def moves(prefix: Order) -> Sequence[int]:
        node = made
        for move in prefix:
            node = node[move]
        return list(node)

    rewards = {leaf: random.Random(repr(leaf)).uniform(-1, 1) for leaf in leaves(made)}
    found = run(TreeSearch(moves, exploration=c / 2, seed=seed), rewards.__getitem__, batch)
    assert sorted(found) == sorted(rewards)


def test_where_there_is_no_move_the_empty_sequence_is_all() -> None:
    search: TreeSearch[int] = TreeSearch(lambda prefix: [])
    assert search.propose() == ()
    search.record((), 1.0)
    assert search.propose() is None


def test_moves_may_be_anything_that_can_be_a_key() -> None:
    steps = {(): ["left", "right"], ("left",): [(0.5, 0.5), None]}
    search: TreeSearch[Any] = TreeSearch(lambda prefix: steps.get(prefix, []))
    found = run(search, lambda sequence: len(sequence))
    assert Counter(found) == Counter([("left", (0.5, 0.5)), ("left", None), ("right",)])


def test_the_seed_decides() -> None:
    found = {seed: tuple(run(TreeSearch(orders(4), seed=seed), worth)) for seed in range(5)}
    assert len(set(found.values())) == 5
    random.seed(1)  # the generator of all others is not asked
    assert tuple(run(TreeSearch(orders(4), seed=2), worth)) == found[2]


def test_what_is_new_is_tried_before_anything_is_tried_again() -> None:
    search = TreeSearch(orders(5))
    assert {search.propose()[0] for _ in range(5)} == set(range(5))  # type: ignore[index]


def below_each(prefix: Order) -> Sequence[int]:
    """Three ways to begin, ten ways to go on with each."""
    return range([3, 10, 0][len(prefix)])


def test_without_exploration_the_best_beginning_is_used_up_first() -> None:
    search = TreeSearch(below_each, exploration=0.0)
    firsts = [sequence[0] for sequence in run(search, lambda sequence: float(sequence[0]))]
    assert sorted(firsts[:3]) == [0, 1, 2]
    assert firsts[3:] == [2] * 9 + [1] * 9 + [0] * 9


def test_with_a_lot_of_exploration_all_beginnings_have_their_turn() -> None:
    search = TreeSearch(below_each, exploration=1e6)
    firsts = [sequence[0] for sequence in run(search, lambda sequence: float(sequence[0]))]
    assert all(sorted(firsts[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))


def test_what_was_proposed_and_not_told_yet_counts_as_a_visit() -> None:
    search = TreeSearch(below_each, exploration=1.0)
    for _ in range(3):
        sequence = search.propose()
        assert sequence is not None
        search.record(sequence, 0.5)
    # All three are equally good, so that a batch goes round.
    batch = [search.propose() for _ in range(6)]
    assert Counter(sequence[0] for sequence in batch if sequence) == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("batch", [1, 4])
def test_where_like_orders_are_alike_it_beats_chance(batch: int) -> None:
    every = list(permutations(range(6)))
    ours, theirs = [], []
    for seed in range(30):
        search, found = TreeSearch(orders(6), seed=seed), []
        while len(found) < 60:
            wave = [search.propose() for _ in range(batch)]
            for order in wave:
                assert order is not None
                search.record(order, worth(order))
            found += wave
        ours.append(max(worth(order) for order in found if order is not None))
        theirs.append(max(map(worth, random.Random(seed).sample(every, 60))))
    assert sum(ours) > sum(theirs)
