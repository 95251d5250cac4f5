"""What is said of results: points and their spread, the effect of the order, and its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from cl_platform.report import pictures, points as analysis


def frame(rows: Sequence[tuple[str, str, int, float]]) -> pd.DataFrame:
    columns = ["axis.strategy", "axis.curriculum", "axis.seed", "average_accuracy"]
    made = pd.DataFrame(rows, columns=columns)
    made["strategy.name"], made["seed"] = made["axis.strategy"], made["axis.seed"]
    return made


FRAME = frame(
    [
        ("er", "0 1", 0, 0.5),
        ("er", "0 1", 1, 0.7),
        ("er", "1 0", 0, 0.85),
        ("er", "1 0", 1, 0.75),
        ("joint", "0 1", 0, 0.8),
        ("joint", "0 1", 1, 0.9),
        ("joint", "1 0", 0, 0.8),
        ("joint", "1 0", 1, 0.9),
    ]
)


def test_runs_stand_by_point_best_first() -> None:
    groups = analysis.by_point(FRAME)
    assert [point for point, _ in groups] == [
        ("joint", "0 1"),
        ("joint", "1 0"),
        ("er", "1 0"),
        ("er", "0 1"),
    ]
    assert [len(group) for _, group in groups] == [2, 2, 2, 2]
    assert [point for point, _ in analysis.by_point(FRAME, "curriculum")] == [("joint",), ("er",)]


def test_without_axes_there_is_one_point_of_all_runs() -> None:
    (group,) = analysis.by_point(FRAME[["axis.seed", "average_accuracy"]])
    assert group[0] == ()
    assert len(group[1]) == 8


def test_the_axes_of_a_frame_are_all_but_the_seed() -> None:
    assert analysis.axes_of(FRAME) == ["axis.strategy", "axis.curriculum"]
    assert analysis.axes_of(FRAME, "strategy") == ["axis.curriculum"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0.812], "81.2"), ([0.5, 0.7], "60.0 ± 14.1"), ([0.1, 0.2, 0.3], "20.0 ± 10.0")],
)
def test_spread_is_mean_and_standard_deviation(numbers: list[float], text: str) -> None:
    assert analysis.spread(pd.Series(numbers)) == text


def test_the_effect_of_the_order_by_hand() -> None:
    joint, er = analysis.order_effects(FRAME)
    assert (joint.point, er.point) == ("joint", "er")
    assert joint.between == pytest.approx(0)
    assert list(er.means.items()) == [("1 0", pytest.approx(0.8)), ("0 1", pytest.approx(0.6))]
    chance = 4 * 0.075**2 / 2  # order x seed of a mean of two seeds; each cell is 0.075 off
    assert er.between == pytest.approx(math.sqrt(0.02 - chance))  # the variance of 0.8 and 0.6
    assert er.within == pytest.approx(math.sqrt((0.02 + 0.005) / 2))  # two are 0.2 apart, and 0.1
    assert er.deviations["0 1"] == pytest.approx(math.sqrt(0.02))
    assert str(er) == (
        "er: the order moves accuracy by 9.4 points (sd over 2 orders, less what chance explains), "
        "the seed by 11.2; from 60.0 (0 1) to 80.0 (1 0)"
    )


@pytest.mark.parametrize("of_seeds", [0.0, 0.05, 0.1])
def test_what_the_seeds_share_is_no_noise_of_the_orders(of_seeds: float) -> None:
    """Whatever the seeds do to all orders alike, the orders move accuracy by what they do."""
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        table = 0.5 + rng.normal(0, 0.02, (24, 1)) + rng.normal(0, of_seeds, (1, 3))
        table = table + rng.normal(0, 0.01, (24, 3))
        rows = [("er", f"{i:02}", s, v) for (i, s), v in np.ndenumerate(table)]
        (effect,) = analysis.order_effects(frame(rows))
        found.append(effect.between)
    assert np.mean(found) == pytest.approx(0.0197, abs=0.0008)


def test_an_order_without_a_seed_is_left_out_of_the_effect() -> None:
    rows = [("er", o, s, v + s / 4) for o, v in (("0", 0.1), ("1", 0.3)) for s in (0, 1)]
    (effect,) = analysis.order_effects(frame([*rows, ("er", "2", 1, 0.5)]))
    assert effect.between == pytest.approx(0.2 / math.sqrt(2))
    assert (effect.compared, len(effect.means)) == (2, 3)


def test_orders_with_seeds_of_their_own_are_compared_by_their_means() -> None:
    rows = [("er", "0", s, 0.4 + s / 10) for s in (0, 1)]
    (effect,) = analysis.order_effects(
        frame([*rows, *(("er", "1", s, 0.6 + s / 10) for s in (2, 3))])
    )
    noise = 0.005 / 2  # of a mean of two
    assert effect.between == pytest.approx(math.sqrt(0.08 - noise))


def test_the_spread_over_seeds_is_pooled_by_degrees_of_freedom() -> None:
    rows = [("er", "0 1", s, v) for s, v in enumerate([0.1, 0.3, 0.5])]  # variance 0.04 of three
    rows += [("er", "1 0", 0, 0.5), ("er", "1 0", 1, 0.7)]  # variance 0.02 of two
    (effect,) = analysis.order_effects(frame(rows))
    assert effect.within == pytest.approx(math.sqrt((2 * 0.04 + 1 * 0.02) / 3))


def test_with_a_single_seed_nothing_is_said_of_seeds() -> None:
    single = FRAME[FRAME["axis.seed"] == 0]
    effect = analysis.order_effects(single)[0]
    assert math.isnan(effect.within)
    assert "seed" not in str(effect)


@pytest.mark.parametrize(
    "some",
    [FRAME[FRAME["axis.curriculum"] == "0 1"], FRAME.drop(columns="axis.curriculum"), FRAME[:0]],
    ids=["one order", "no axis", "empty"],
)
def test_one_order_has_no_effect(some: pd.DataFrame) -> None:
    assert analysis.order_effects(some) == []


def test_the_figure_has_a_line_for_each_point_over_the_orders_of_the_best() -> None:
    partial = FRAME.drop(index=4)
    effects = analysis.order_effects(partial)
    figure = pictures.order_figure(effects)
    (axes,) = figure.axes
    assert len(axes.containers) == 2
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in axes.containers}
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == list(effects[0].means.index)
    assert drawn["er"] == pytest.approx([100 * effects[1].means[name] for name in names])
