"""Teachers as bandits: golden numbers, and the chain, on which orders matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cl_platform import Past, Teacher, Visit
from cl_platform.config.signatures import build
from cl_platform.core.order.teacher import next_visit
from streams.teachers.bandits import arm_values, softmax, upper_bounds
from streams.teachers.signals import draw

ARMS, LEVELS, READY = 10, 100, 75


def competences(teacher: Teacher, slices: int, seed: int) -> np.ndarray:
    """The chain as :class:`examples.competence.Competence` learns it, without a run."""
    scores, visits = np.zeros((slices + 1, ARMS)), []
    for k in range(slices):
        shown = scores[: k + 1] / LEVELS
        past = Past(tuple(visits), shown, shown, shown, (LEVELS,) * ARMS, slices)
        visit = next_visit(teacher, past, seed)
        assert visit is not None
        arm = visit.experience
        scores[k + 1] = scores[k]
        if arm == 0 or scores[k, arm - 1] >= READY:
            scores[k + 1, arm] = min(scores[k, arm] + 1, LEVELS)
        visits.append(Visit(arm, 1))
    return scores[-1]


def teacher(name: str, **parameters: Any) -> Teacher:
    made: Teacher = build("curriculum", {"name": f"teacher:{name}", "share": 0.01, **parameters})
    return made


SEC = {"reward": "progress", "temperature": 0.002}


@pytest.mark.slow
def test_shares_of_the_chain_that_are_learned() -> None:
    def share(slices: int, seeds: int, name: str, **parameters: Any) -> float:
        made = teacher(name, **parameters)
        found = [(competences(made, slices, seed) > READY).mean() for seed in range(seeds)]
        return float(np.mean(found))

    assert share(2000, 10, "random") == pytest.approx(0.20, abs=0.04)
    assert share(2000, 5, "alp") == share(2000, 5, "sec", **SEC) == share(2000, 5, "greedy") == 1
    kept, decayed = share(1000, 8, "sec", **SEC), share(1000, 8, "sec", **SEC, decay=True)
    assert decayed + 0.05 < kept < 1  # the fixed order learns all of it


def test_a_good_fixed_order_is_the_bound_on_the_chain() -> None:
    assert (competences(teacher("fixed"), 1000, 0) > READY).all()
    assert (competences(teacher("random"), 1000, 0) > READY).mean() < 0.3


def test_values_of_sec() -> None:
    rewards = np.array([[0.6, 0.2, np.nan], [0.4, 0.4, np.nan]])
    values = arm_values(rewards, 0.5, decay=False)
    assert values.tolist() == pytest.approx([0.35, 0.25, 0])
    assert softmax(values).tolist() == pytest.approx([0.383211, 0.346744, 0.270045], abs=1e-6)
    sharp = softmax(values / 0.2).tolist()
    assert sharp == pytest.approx([0.561702, 0.340689, 0.097609], abs=1e-6)


@pytest.mark.parametrize(("decay", "expected"), [(True, [0.15, 0.2, 0]), (False, [0.3, 0.2, 0])])
def test_arms_without_a_slice_decay_in_the_published_code(
    decay: bool, expected: list[float]
) -> None:
    rewards = np.array([[0.6, np.nan, np.nan], [np.nan, 0.4, np.nan]])
    assert arm_values(rewards, 0.5, decay).tolist() == pytest.approx(expected)


def test_bounds_of_dump() -> None:
    bounds = upper_bounds(np.array([0.5, 0.5, 0.1]), np.array([10, 1, 10]))
    assert bounds.tolist() == pytest.approx([1.249672, 2.258136, 0.849672], abs=1e-6)
    shares = softmax(bounds / 0.1).tolist()
    assert shares == pytest.approx([0.000042, 0.999958, 0.000001], abs=1e-6)


def past(visits: list[int], accuracy: list[list[float]]) -> Past:
    table = np.array(accuracy)
    made = tuple(Visit(v, 1) for v in visits)
    return Past(made, table, table, table, (5,) * table.shape[1], 100)


def shares(name: str, shown: Past, **parameters: Any) -> np.ndarray:
    """How often each experience is chosen."""
    made = teacher(name, **parameters)
    chosen = [made.choose(shown, np.random.default_rng(seed)) for seed in range(400)]
    return np.bincount(chosen, minlength=len(shown.sizes)) / len(chosen)


def test_alp_draws_in_proportion_to_the_last_change_up_or_down() -> None:
    shown = past(
        [0, 1, 0, 1], [[0, 0, 0], [0.5, 0, 0], [0.5, 0.6, 0], [0.6, 0.6, 0], [0.6, 0.3, 0]]
    )
    assert shown.progress().tolist() == pytest.approx([0.1, -0.3, 0])
    found = shares("alp", shown)
    assert found.tolist() == pytest.approx([0.2 + 0.2 / 3, 0.6 + 0.2 / 3, 0.2 / 3], abs=0.07)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("uncertainty", lambda found: found[2] == 1),
        ("greedy", lambda found: found[2] > 0.9),  # what was never visited comes first
        ("learnable", lambda found: found.argmax() == 1),
        ("dump", lambda found: found.argmin() == 0),  # known, and visited as often as the second
    ],
)
def test_what_teachers_look_for(name: str, check: Callable[[np.ndarray], bool]) -> None:
    shown = past([0, 1], [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1], [0.9, 0.5, 0.05]])
    assert check(shares(name, shown))


def test_an_experience_is_drawn_uniformly_where_nothing_has_a_weight() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(np.zeros(4), 0.0, rng) for _ in range(400)]
    assert np.bincount(drawn, minlength=4).min() > 60


def test_a_fixed_order_learns_each_experience_to_its_end() -> None:
    made = build("curriculum", {"name": "teacher:fixed", "order": [1, 0, 1], "share": 0.4})
    visits: tuple[Visit, ...] = ()
    while visit := next_visit(made, Past(visits, *[np.zeros((1, 2))] * 3, (5, 10), 25), 0):
        visits += (visit,)
    assert visits == ((1, 4), (1, 4), (1, 2), (0, 2), (0, 2), (0, 1), (1, 4), (1, 4), (1, 2))
