"""The effects of pairs: known ones are found, noise foretells nothing, few orders say so."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cl_platform.metrics.statistics import Interval
from cl_platform.report.orders import pairs
from cl_platform.report.orders.pairs import PairEffects, pair_effects, pair_sentences
from cl_platform.report.orders.study import studies
from tests.report.test_orders import FOUR, drawn, frame, some_orders

FIVE = np.array(list(permutations(range(5))))


def known(n: int, seed: int = 0) -> np.ndarray:
    """What i before j is worth."""
    effects = np.random.default_rng(seed).normal(0, 0.02, (n, n))
    return effects - effects.T


def outcome(effects: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """By the definition: half an effect for each pair that stands one way, less half the other."""
    return np.array(
        [
            0.5 + sum(effects[i, j] / 2 for k, i in enumerate(order) for j in order[k + 1 :])
            for order in orders.tolist()
        ]
    )


def found(orders: np.ndarray, values: np.ndarray) -> PairEffects:
    effects = pair_effects(orders, values)
    assert effects is not None
    return effects


def told(orders: np.ndarray, values: np.ndarray) -> str:
    """What the report says of orders with these accuracies."""
    by_order = dict(zip(map(tuple, orders.tolist()), values.tolist(), strict=True))
    (study,) = studies(frame(lambda _, o, s: by_order[o], list(by_order), seeds=1))
    (point,) = study.points
    effects = {"average_accuracy": pair_effects(point.orders, point.means)}
    return pair_sentences(point, effects, study.items)


def test_known_effects_of_pairs_are_found_and_foretell_all_other_orders() -> None:
    effects = known(5)
    made = found(FIVE, outcome(effects, FIVE))
    assert made.effects[~np.eye(5, dtype=bool)] == pytest.approx(effects[~np.eye(5, dtype=bool)])
    assert np.isnan(np.diag(made.effects)).all()
    assert made.sizes[-1] == 90
    assert [made.fits[-1].low, made.fits[-1].value] == pytest.approx([1, 1])
    # Ten effects and a mean take eleven orders, in whatever split; five are not enough.
    assert made.enough is not None
    assert made.enough.high <= 26
    assert made.fits[0].value < 0.5


def test_a_few_orders_of_seven_items_foretell_the_others() -> None:
    orders = np.array(some_orders(7, 60))  # of 5040
    assert found(orders, outcome(known(7), orders)).fits[-1].value == pytest.approx(1)


def test_noise_is_not_foretold() -> None:
    fits = []
    for seed in range(8):
        made = found(FIVE, np.random.default_rng(seed).normal(0.5, 0.1, 120))
        fits.append(made.fits[-1].value)
    assert -0.3 < np.mean(fits) <= 0
    assert max(fits) < 0.2


def test_noise_takes_its_share_of_what_is_foretold() -> None:
    effects = outcome(known(5), FIVE)
    fits = []
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(0, effects.std(), 120)
        fits.append(found(FIVE, effects + noise).fits[-1].value)
    assert np.mean(fits) == pytest.approx(0.5 - 0.5 * 11 / 90, abs=0.06)


def test_what_is_no_effect_of_pairs_is_not_foretold() -> None:
    parity = [np.linalg.det(np.eye(5)[order]) for order in FIVE.tolist()]
    assert found(FIVE, np.array(parity)).enough is None


def test_the_penalty_is_that_of_the_least_error_when_each_order_is_left_out() -> None:
    orders = FIVE[np.random.default_rng(0).permutation(120)[:25]]
    x = pairs._design(orders)
    y = outcome(known(5), orders) + np.random.default_rng(1).normal(0, 0.05, 25)

    def fitted(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
        centred = x - x.mean(0)
        effects = np.linalg.solve(
            centred.T @ centred + penalty * np.eye(10), centred.T @ (y - y.mean())
        )
        return effects, y.mean() - x.mean(0) @ effects

    def error(penalty: float) -> float:
        left_out = []
        for i in range(25):
            effects, mean = fitted(np.delete(x, i, 0), np.delete(y, i), penalty)
            left_out.append((x[i] @ effects + mean - y[i]) ** 2)
        return float(np.mean(left_out))

    best = min((25 * p for p in pairs.PENALTIES), key=error)
    effects, mean = pairs._ridge(x, y)
    assert effects == pytest.approx(fitted(x, y, best)[0])
    assert mean == pytest.approx(fitted(x, y, best)[1])


def test_enough_are_the_fewest_from_which_on_more_gain_little() -> None:
    sizes = np.array([4, 8, 16, 32])
    fits = np.array([[0.1, 0.58, 0.4, 0.6], [0.1, 0.5, 0.56, 0.6]])
    assert pairs._from_on(fits[0], sizes) == 32  # eight were lucky
    assert pairs._from_on(fits[1], sizes) == 16
    assert pairs._from_on(np.full(4, 0.6), sizes) == 4
    assert pairs._enough(fits, sizes) == Interval(32, pytest.approx(16.4), pytest.approx(31.6))
    assert pairs._enough(fits - 0.6, sizes) is None


def test_pairs_that_stand_one_way_only_have_no_effect() -> None:
    first = FIVE[FIVE[:, 0] == 0]
    effects = found(first, outcome(known(5), first)).effects
    assert np.isnan(effects[0]).all()
    assert not np.isnan(effects[1, 2:]).any()


@pytest.mark.parametrize("orders", [FOUR[:12], some_orders(10, 30)], ids=["12 of 24", "30 of ten"])
def test_a_study_of_few_orders_says_so(orders: list[tuple[int, ...]]) -> None:
    few = np.array(orders)
    text = told(few, drawn_values(len(few)))
    assert text.startswith(f"er: {len(few)} orders are too few to fit the effects of the ")
    assert text.endswith(f"that takes {pairs.fewest(few)}.")
    assert pair_effects(few, drawn_values(len(few))) is None


def drawn_values(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.5, 0.1, n)


def test_it_is_said_in_plain_english() -> None:
    effects = np.zeros((5, 5))
    effects[3, 1], effects[1, 3] = 0.12, -0.12
    text = told(FIVE, outcome(effects, FIVE))
    assert " of 120 orders [" in text
    assert "enough to foretell accuracy of the others by which of two comes first" in text
    assert text.endswith("Most counts 3 before 1: +12.0 points of accuracy.")
    assert "does not foretell accuracy (R" in told(FIVE, drawn_values(120))
    assert told(FIVE, np.full(120, 0.5)) == (
        "er: there is nothing to foretell, all orders give the same."
    )
    six = np.array(list(permutations(range(3))))
    assert told(six, drawn_values(6)) == (
        "er: all 6 orders are too few to fit the effects of the 3 pairs and to judge them; "
        "that takes 8."
    )


def test_a_stream_without_forgetting_is_foretold_by_its_accuracy() -> None:
    made = frame(drawn(0)).assign(forgetting=np.nan)
    point = studies(made)[0].points[0]
    assert pair_effects(point.orders, point.outcomes["forgetting"]) is None
    assert pair_effects(point.orders, point.outcomes["average_accuracy"]) is not None
