"""The study of orders: on made-up frames, by simulation, and on a real sweep with its page."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cl_platform import Curriculum, Stream
from cl_platform.errors import BadInput
from cl_platform.metrics.statistics import correlation, holm, permutation_p, share_interval
from cl_platform.report.orders import page as study_page, study
from cl_platform.report.orders.study import Study, studies, verdict
from streams.curricula import designer
from streams.curricula.designed import Designer
from sweeps.api import Sweep, sweep
from sweeps.planning import plan_runs
from sweeps.record import Phase, write_sweep
from sweeps.scores import scores_of
from tests.helpers.sweep_runs import PLANNER, spec

Order = tuple[int, ...]
Accuracy = Callable[[str, Order, int], float]
THREE, FOUR, FIVE = (list(permutations(range(n))) for n in (3, 4, 5))


def frame(
    accuracy: Accuracy,
    orders: Sequence[Order] = FOUR,
    seeds: int = 2,
    strategies: Sequence[str] = ("er",),
    scores: Mapping[str, Callable[[Order], float]] | None = None,
    stream: str = "made-up",
) -> pd.DataFrame:
    """Results as :meth:`Sweep.results` gives them; forgetting falls and F rises with accuracy."""
    rows = []
    for strategy in strategies:
        for order in orders:
            for seed in range(seeds):
                value = float(accuracy(strategy, order, seed))
                name = " ".join(map(str, order))
                rows.append(
                    {
                        "run_id": f"{strategy}-{name}-{seed}",
                        "axis.strategy": strategy,
                        "axis.curriculum": name,
                        "axis.seed": str(seed),
                        "path": "/nowhere",
                        "order": order,
                        "average_accuracy": value,
                        "forgetting": (1 - value) / 2,
                        "curriculum.f": value**3,
                        "stream.name": stream,
                        "strategy.name": strategy,
                        "seed": seed,
                        **{f"score.{k}": float(f(order)) for k, f in (scores or {}).items()},
                    }
                )
    return pd.DataFrame(rows)


def drawn(seed: int) -> Accuracy:
    """Nothing but noise."""
    rng = np.random.default_rng(seed)
    return lambda *_: rng.normal(0.5, 0.1)


def distances(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random distances between n things."""
    return (lambda half: half + half.T)(rng.random((n, n)))


def designed(seed: int, n: int) -> Callable[[Order], float]:
    """The score of a Curriculum Designer for random distances."""
    matrix = distances(np.random.default_rng(seed), n)
    return lambda order: float(designer.scores(matrix, np.array(order))[0])


def some_orders(n: int, m: int) -> list[Order]:
    rng = np.random.default_rng(0)
    return list(dict.fromkeys(tuple(map(int, rng.permutation(n))) for _ in range(m)))


def only(found: Sequence[Study]) -> Study:
    (one,) = found
    return one


def without_nan(text: str) -> bool:
    """Whether nothing a person reads is nan; pictures hold their texts as paths."""
    readable = re.sub(r"<svg.*?</svg>", " ", text, flags=re.DOTALL)
    return not re.search(r"\bnan\b", re.sub(r"<[^>]*>", " ", readable))


# --- what is studied


def test_a_frame_of_few_orders_is_no_study() -> None:
    assert studies(frame(drawn(0), FOUR[:5])) == []
    assert len(studies(frame(drawn(0), FOUR[:6]))) == 1
    assert studies(frame(drawn(0), THREE[:1])) == []
    assert studies(frame(drawn(0)).drop(columns="axis.curriculum")) == []
    assert studies(frame(drawn(0))[:0]) == []


@pytest.mark.parametrize("axis", ["axis.stream", "axis.stream.name", "axis.scenario"])
def test_each_stream_has_a_study_of_its_own(axis: str) -> None:
    values = ["split-a classes=5", "split-b"]
    parts = [frame(drawn(i), stream=v).assign(**{axis: v}) for i, v in enumerate(values)]
    parts.append(frame(drawn(2), FOUR[:5]).assign(**{axis: "too few"}))
    found = studies(pd.concat(parts, ignore_index=True))
    assert [one.stream for one in found] == values
    for one, alone in zip(found, parts, strict=False):
        assert [p.point for p in one.points] == ["er"]
        expected = only(studies(alone.drop(columns=axis))).points[0]
        assert one.points[0].means.tolist() == expected.means.tolist()


def test_points_stand_best_first_and_are_named_by_their_axes() -> None:
    better = {"b": 0.5, "a": 0.1, "c": 0.9}
    made = frame(lambda s, o, k: better[s] + o[0] / 100, strategies=list(better))
    assert [p.point for p in only(studies(made)).points] == ["c", "b", "a"]
    both = pd.concat([made.assign(**{"axis.lr": lr}) for lr in ("0.1", "0.2")])
    names = [p.point for p in only(studies(both)).points]
    assert sorted(names) == [f"{s} {lr}" for s in "abc" for lr in ("0.1", "0.2")]
    alone = only(studies(frame(drawn(0)).drop(columns="axis.strategy")))
    assert [p.point for p in alone.points] == ["er"]
    assert alone.stream == "made-up"


def test_a_failed_run_costs_its_order_at_its_point_and_no_other() -> None:
    made = frame(drawn(0), strategies=("er", "ewc"), scores={"s": designed(0, 4)}, seeds=3)
    lost = (made["axis.strategy"] == "er") & (made["order"] == FOUR[7]) & (made["seed"] == 1)
    assert lost.sum() == 1
    found = {p.point: p for p in only(studies(made[~lost])).points}
    assert [tuple(o) for o in found["er"].orders] == [o for o in FOUR if o != FOUR[7]]
    assert [tuple(o) for o in found["ewc"].orders] == FOUR
    whole = {p.point: p for p in only(studies(made)).points}
    kept = [i for i in range(24) if i != 7]
    assert found["er"].means.tolist() == whole["er"].means[kept].tolist()
    # Renaming leads out of what is there, and says nothing then.
    assert np.isnan([p.relabelled for p in found["er"].predictions]).all()
    before = [p.relabelled for p in whole["ewc"].predictions]
    assert [p.relabelled for p in found["ewc"].predictions] == before


def test_orders_that_no_seed_has_whole_are_no_study() -> None:
    made = frame(drawn(0))
    staggered = made[[FOUR.index(o) % 2 == s for o, s in zip(made.order, made.seed, strict=True)]]
    assert staggered["order"].nunique() == 24
    assert studies(staggered) == []


def test_orders_of_classes_and_of_experiences_may_stand_side_by_side() -> None:
    both = pd.concat([frame(drawn(0), THREE), frame(drawn(1), FOUR)], ignore_index=True)
    assert studies(both)


def test_a_stream_of_one_experience_has_no_forgetting_and_a_study_all_the_same() -> None:
    made = frame(drawn(0)).assign(forgetting=nan)  # orders of classes within one experience
    assert set(only(studies(made)).points[0].shares) == {"average_accuracy", "curriculum.f"}


# --- what the orders did


def test_best_median_and_worst_are_told_with_intervals() -> None:
    values = {(o, s): 0.3 + FOUR.index(o) / 100 + s / 1000 for o in FOUR for s in range(3)}
    point = only(studies(frame(lambda _, o, s: values[o, s], seeds=3))).points[0]
    assert (point.best.order, point.worst.order) == (FOUR[23], FOUR[0])
    assert point.median.order in (FOUR[11], FOUR[12])
    for shown in (point.best, point.median, point.worst):
        mine = [values[shown.order, s] for s in range(3)]
        assert shown.accuracy == share_interval(mine)


def test_places_are_means_over_the_orders_with_an_item_there() -> None:
    point = only(studies(frame(drawn(3), FOUR[:20]))).points[0]
    for item in range(4):
        for place in range(4):
            mine = [m for o, m in zip(FOUR, point.means, strict=False) if o[place] == item]
            expected = np.mean(mine) if mine else nan
            assert point.positions[item, place] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(only(studies(frame(drawn(3), FOUR[:12]))).points[0].positions).sum() == 2


def test_where_the_first_item_decides_all_of_it_is_the_first_item() -> None:
    first = only(studies(frame(lambda _, o, s: [0.2, 0.9, 0.4, 0.5][o[0]]))).points[0].first
    assert first.share == pytest.approx(1)
    assert first.p < 0.002
    last = only(studies(frame(lambda _, o, s: [0.2, 0.9, 0.4, 0.5][o[-1]]))).points[0].first
    assert last.share < 0.2
    assert last.p > 0.3


def test_the_share_of_the_first_item_is_the_correlation_ratio() -> None:
    point = only(studies(frame(drawn(5)))).points[0]
    means = point.means
    groups = [means[point.orders[:, 0] == i] for i in range(4)]
    between = sum(len(g) * (g.mean() - means.mean()) ** 2 for g in groups)
    assert point.first.share == pytest.approx(between / ((means - means.mean()) ** 2).sum())


@pytest.mark.parametrize("of_orders", [0.0, 3.0], ids=["orders alike", "orders differ"])
@pytest.mark.parametrize("late", [0.0, 1.0], ids=["equal steps", "later steps noisier"])
def test_the_first_item_is_found_by_chance_as_often_as_the_level(
    of_orders: float, late: float
) -> None:
    """What is learned first has no effect; but orders that begin alike share states with noise."""
    rng, p = np.random.default_rng(0), []
    for _ in range(200):
        noise: dict[tuple[Order, int], float] = {}
        own = dict(zip(FOUR, rng.normal(0, of_orders, 24), strict=True))

        def accuracy(order: Order, seed: int) -> float:
            steps = [
                (1 + late * k) * noise.setdefault((order[:k], seed), rng.normal())  # noqa: B023
                for k in range(1, 5)
            ]
            return own[order] + sum(steps)  # noqa: B023

        table = np.array([[accuracy(order, seed) for seed in range(3)] for order in FOUR])
        p.append(study._first(np.array(FOUR), table).p)
    assert np.mean(np.array(p) <= 0.05) < 0.09
    assert 0.02 < np.mean(np.array(p) <= 0.1) < 0.16


def test_an_item_that_matters_first_is_found() -> None:
    rng = np.random.default_rng(0)
    state = {(i, s): rng.normal() for i in range(4) for s in range(5)}
    made = frame(lambda _, o, s: 3 * o[0] + state[o[0], s] + rng.normal(), seeds=5)
    assert only(studies(made)).points[0].first.p < 0.001


@pytest.mark.parametrize("orders", [FOUR[:20], some_orders(10, 30)], ids=["20 of 24", "30 of ten"])
def test_the_first_item_has_no_p_where_items_are_not_first_equally_often(
    orders: list[Order],
) -> None:
    first = only(studies(frame(drawn(0), orders, 3))).points[0].first
    assert 0 < first.share < 1
    assert math.isnan(first.p)


def parts(made: pd.DataFrame, outcome: str = "average_accuracy") -> list[float]:
    found = only(studies(made)).points[0].shares[outcome]
    return [found.rows.value, found.columns.value, found.interaction.value]


def test_shares_of_known_parts_are_found() -> None:
    rng = np.random.default_rng(0)
    order, seed = dict(zip(FOUR, rng.normal(size=24), strict=True)), rng.normal(size=10)
    assert parts(frame(lambda _, o, s: order[o], seeds=10)) == pytest.approx([1, 0, 0], abs=1e-9)
    assert parts(frame(lambda _, o, s: seed[s], seeds=10)) == pytest.approx([0, 1, 0], abs=1e-9)
    made = frame(lambda _, o, s: order[o] + 2 * seed[s], seeds=10)
    of_order, of_seed = np.var(list(order.values()), ddof=1), 4 * np.var(seed, ddof=1)
    expected = [of_order / (of_order + of_seed), of_seed / (of_order + of_seed), 0]
    assert parts(made) == pytest.approx(expected)
    assert parts(made, "forgetting") == pytest.approx(expected)  # linear in accuracy here
    noise = np.random.default_rng(1)
    noisy = [parts(frame(lambda _, o, s: order[o] + noise.normal(), seeds=5)) for _ in range(25)]
    truth = of_order / (of_order + 1)
    assert np.mean(noisy, axis=0) == pytest.approx([truth, 0, 1 - truth], abs=0.04)


def test_picking_an_order_out_of_noise_is_worth_nothing() -> None:
    found = [only(studies(frame(drawn(k), seeds=3))).points[0] for k in range(100)]
    worth = np.array([point.picked.value for point in found])  # type: ignore[union-attr]
    best = np.array([point.best.accuracy.value - point.means.mean() for point in found])
    assert abs(worth.mean()) < 3 * worth.std() / 10
    assert (best > 0.04).all(), "the best of many seems better, by more than half a deviation"
    assert best.mean() > 10 * abs(worth.mean())


def test_picking_an_order_that_is_better_is_worth_what_it_is_better() -> None:
    point = only(studies(frame(lambda _, o, s: 0.9 if o == FOUR[5] else 0.5, seeds=3))).points[0]
    assert point.picked is not None
    gain = 0.4 * 23 / 24
    found = [point.picked.value, point.picked.low, point.picked.high]
    assert found == pytest.approx([gain] * 3)


def test_with_a_single_seed_nothing_is_said_of_seeds() -> None:
    found = only(studies(frame(drawn(0), seeds=1, scores={"s": designed(0, 4)})))
    point = found.points[0]
    assert (point.seeds, point.shares, point.picked) == (1, {}, None)
    assert np.isnan([point.best.accuracy.low, point.best.accuracy.high, *found.ceiling]).all()
    assert not np.isnan(point.predictions[0].correlation.p)


def test_agreement_is_rho_of_the_means_over_the_orders_in_common() -> None:
    made = frame(drawn(0), strategies=("a", "b", "c"))
    made = made[~((made["axis.strategy"] == "b") & made["order"].isin(FOUR[:5]))]
    found = only(studies(made))
    means = {
        p.point: {tuple(o): m for o, m in zip(p.orders, p.means, strict=True)} for p in found.points
    }
    for i, j in np.ndindex(3, 3):
        x, y = ([means[found.points[k].point][o] for o in FOUR[5:]] for k in (i, j))
        assert found.agreement[i, j] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert np.diag(found.agreement) == pytest.approx([1, 1, 1])


def test_the_ceiling_is_what_a_repetition_with_other_seeds_agrees() -> None:
    # Two strategies that are one, with noise of their own.
    ceilings, repeated = [], []
    for k in range(24):
        rng = np.random.default_rng(k)
        true = dict(zip(FIVE, rng.normal(size=120), strict=True))
        made = frame(
            lambda _, o, s, true=true, rng=rng: true[o] + rng.normal(),
            FIVE[::2],
            seeds=3,
            strategies=("a", "b"),
        )
        found = only(studies(made))
        ceilings += found.ceiling.tolist()
        repeated.append(found.agreement[0, 1])
    assert np.mean(ceilings) == pytest.approx(0.75, abs=0.03)  # 1 / (1 + 1/3)
    assert np.mean(ceilings) == pytest.approx(np.mean(repeated), abs=0.05)


def test_orders_that_differ_by_rounding_do_not_differ_at_all() -> None:
    seen = [0.913, 0.871, 0.702, 0.64]  # of joint training: added up in the order of learning
    made = frame(lambda _, o, s: np.mean([seen[i] + s / 7 for i in o]), scores={"s": sum})
    spread = made.groupby("seed")["average_accuracy"].agg(lambda v: v.max() - v.min())
    assert (spread > 0).all()
    assert (spread < 1e-15).all()
    point = only(studies(made)).points[0]
    assert np.isnan([point.first.share, point.first.p]).all()
    assert np.isnan(point.predictions[0].correlation.rho)


# --- whether it was foreseen


def test_a_score_that_is_the_accuracy_foresees_everything() -> None:
    value = designed(1, 4)
    made = frame(lambda _, o, s: value(o) / 10, scores={"mine": value})
    found = only(studies(made))
    assert [p.outcome for p in found.points[0].predictions] == list(study.OUTCOMES)
    assert found.points[0].scores["mine"].tolist() == [value(o) for o in FOUR]
    for p in found.points[0].predictions:
        assert p.correlation.rho == pytest.approx(1)
        assert p.correlation.tau == pytest.approx(1)
        assert p.correlation.p == 1 / 2001
        assert p.adjusted == pytest.approx(3 / 2001)
        assert p.relabelled == pytest.approx(1 / 24)  # no other naming does as well
        assert p.overlaps == {10: (10, 100 / 24), 20: (20, 400 / 24)}
    assert verdict(found, "mine") == (
        "mine foresees 3 of 3 outcomes, 0 the wrong way round "
        "(p < 0.05 by shuffling, corrected for 3 comparisons, and by itself under renaming)"
    )


def test_a_score_that_is_wrong_is_said_to_be() -> None:
    value = designed(1, 4)
    made = frame(lambda _, o, s: -value(o) / 10, scores={"mine": value, "other": sum})
    found = only(studies(made))
    assert [p.correlation.rho for p in found.points[0].predictions[:3]] == pytest.approx(
        [-1, -1, -1]
    )
    assert found.points[0].predictions[0].overlaps[10] == (0, 100 / 24)
    assert verdict(found, "mine").startswith("mine foresees 0 of 3 outcomes, 3 the wrong way round")
    # A score that is the same for all orders has no rho, and does not count as a comparison lost.
    assert verdict(found, "other").startswith("other foresees 0 of 3 outcomes, 0 the wrong way")
    p = [each.adjusted for each in found.points[0].predictions[:3]]
    assert p == pytest.approx([3 / 2001] * 3)


def test_less_forgetting_is_more() -> None:
    made = frame(drawn(0), scores={"s": designed(0, 4)})
    made["forgetting"] = made["score.s"] + made["average_accuracy"] * 1e-9
    found = {p.outcome: p for p in only(studies(made)).points[0].predictions}
    assert found["forgetting"].correlation.rho == pytest.approx(-1)


@pytest.mark.parametrize(
    ("values", "namings"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2),  # itself, and the one that turns all values round
        ([0.1, 0.2, 0.4, 0.4], 2),  # itself, and the two equal ones exchanged
        ([0.1, 0.1, 0.4, 0.4], 8),  # either pair exchanged or not, and the pairs for each other
        ([0.1, 0.4, 0.4, 0.4], 6),  # the three that are equal
    ],
)
def test_namings_that_do_as_well_are_counted(values: list[float], namings: int) -> None:
    made = frame(lambda _, o, s: values[o[0]], scores={"first": lambda o: values[o[0]]})
    for p in only(studies(made)).points[0].predictions:
        assert p.relabelled == pytest.approx(namings / 24)


def test_renaming_is_what_it_is_by_hand() -> None:
    value = designed(7, 4)
    point = only(studies(frame(drawn(2), seeds=1, scores={"s": value}))).points[0]
    rho = [
        abs(stats.spearmanr([value(tuple(n[i] for i in o)) for o in FOUR], point.means).statistic)
        for n in FOUR
    ]
    expected = np.mean(np.array(rho) >= rho[0] - 1e-9)
    assert point.predictions[0].relabelled == pytest.approx(expected)
    plain = correlation(np.array([value(o) for o in FOUR]), point.means)
    assert point.predictions[0].correlation == plain


def test_unrelated_scores_of_like_form_pass_for_foresight_but_for_renaming() -> None:
    """Orders that begin alike have like scores and like outcomes. Two designers that know nothing
    of each other correlate by that alone, and shuffling the orders takes it for more than chance.
    """
    orders, strict, plain, power = np.array(FIVE), [], [], []
    for k in range(100):
        rng = np.random.default_rng(k)
        mine, theirs = distances(rng, 5), distances(rng, 5)
        accuracy = designer.scores(theirs, orders)
        accuracy += 0.02 * accuracy.std() * rng.standard_normal(120)
        renamed = np.array([designer.scores(mine, np.array(n)[orders]) for n in FIVE])
        strict.append(permutation_p(renamed, accuracy))
        plain.append(correlation(renamed[0], accuracy, resamples=99).p)
        right = np.array([designer.scores(theirs, np.array(n)[orders]) for n in FIVE])
        power.append(permutation_p(right, accuracy + 0.5 * accuracy.std() * rng.normal(size=120)))
    assert np.mean(np.array(strict) <= 0.05) < 0.12
    assert 0.35 < np.mean(strict) < 0.65
    assert np.mean(np.array(plain) <= 0.05) > 0.25
    assert np.mean(np.array(power) <= 0.05) > 0.9, "what is foreseen is found"


def test_p_is_corrected_for_all_points_scores_and_outcomes() -> None:
    made = frame(drawn(4), strategies=("a", "b"), scores={"s": designed(0, 4), "t": designed(1, 4)})
    found = only(studies(made))
    flat = [p for point in found.points for p in point.predictions]
    assert len(flat) == 2 * 2 * 3
    assert [p.adjusted for p in flat] == holm([p.correlation.p for p in flat])
    assert "corrected for 12 comparisons" in verdict(found, "s")
    assert " of 6 outcomes" in verdict(found, "t")


def test_six_orders_are_too_few_to_rule_out_renaming() -> None:
    value = designed(1, 3)
    made = frame(lambda _, o, s: value(o) / 10, THREE, scores={"mine": value})
    found = only(studies(made))
    assert all(p.relabelled >= 1 / 6 - 1e-9 for p in found.points[0].predictions)
    assert verdict(found, "mine").startswith("mine foresees 0 of 3")
    assert found.points[0].predictions[0].overlaps == {}


def of_ten(seeds: int = 2) -> Study:
    value = designed(3, 10)
    orders = some_orders(10, 30)
    made = frame(lambda _, o, s: value(o) / 10 + s / 50, orders, seeds, scores={"d": value})
    return only(studies(made))


def test_a_few_of_many_orders_are_studied_without_renaming() -> None:
    found = of_ten()
    point = found.points[0]
    assert np.isnan([p.relabelled for p in point.predictions]).all()
    assert (point.orders.shape, point.positions.shape) == ((30, 10), (10, 10))
    assert list(point.predictions[0].overlaps) == [10, 20]
    assert found.items == [str(i) for i in range(10)]
    assert verdict(found, "d").startswith("d foresees 3 of 3 outcomes, 0 the wrong way round")


def test_a_verdict_without_renaming_does_not_claim_it() -> None:
    assert "under renaming" not in verdict(of_ten(), "d")


def test_half_of_the_orders_are_not_renamed() -> None:
    half = [o for o in FOUR if o[0] <= o[-1]]  # curriculum all, mirrored: false
    found = only(studies(frame(drawn(0), half, scores={"s": designed(0, 4)})))
    assert np.isnan([p.relabelled for p in found.points[0].predictions]).all()


# --- scores


class Grumpy(Curriculum):
    """Has views on orders that are none."""

    says: str = "raises"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(len(stream))

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        if self.says == "raises":
            raise RuntimeError("no\nview")
        views: dict[str, Any] = {"too few": [0.5], "no numbers": ["good"] * len(orders)}
        return views.get(self.says)  # type: ignore[return-value]


class Curious(Curriculum):
    """Scores an order by what it finds of test data."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(len(stream))

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        return [float(sum(len(e.test) for e in stream.experiences))] * len(orders)


GRUMPY, CURIOUS = f"{__name__}:Grumpy", f"{__name__}:Curious"


@pytest.mark.parametrize(
    ("scored_by", "message"),
    [
        (["random"], "curriculum 'random' gives orders no scores; designer does"),
        (["designer", "as_given"], "curriculum 'as_given' gives orders no scores"),
        (["desinger"], "unknown curriculum 'desinger'. Did you mean 'designer'?"),
        ([{"name": "designer", "distance": "far"}], "scored_by[0].distance=far: input should be"),
        ([{"name": "designer", "encoder": "nope"}], "unknown encoder 'nope'"),
        ("designer", "scored_by=designer: input should be a valid list"),
        ([{"distance": "ot"}], "names nothing: give a name"),
        ([GRUMPY], f"scored_by: curriculum '{GRUMPY}' gives no scores: RuntimeError: no view"),
        *(
            pytest.param([{"name": GRUMPY, "says": says}], "scored_by: curriculum")
            for says in ("too few", "no numbers", "nothing")
        ),
    ],
    ids=str,
)
def test_who_gives_no_scores_is_told_in_one_line_before_anything_starts(
    tmp_path: Path, scored_by: Any, message: str
) -> None:
    given = {"base": {"stream": "blobs"}, "axes": {"seed": [0, 1]}, "scored_by": scored_by}
    with pytest.raises(BadInput) as caught:
        sweep(given, tmp_path / "out")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("level", ["experiences", "classes"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_scores_are_the_designers_for_what_is_ordered(level: str, distance: str) -> None:
    stream = {"name": "split-digits", "classes": 4, "experiences": [1, 1, 2], "samples": 20}
    axes = {"stream": [stream, {**stream, "samples": 10}], "curriculum": ["reverse", "all"]}
    axes["curriculum"] = [{"name": name, "level": level} for name in axes["curriculum"]]
    runs = plan_runs(spec(axes), PLANNER)
    section = {"name": "designer", "distance": distance}
    (found,) = scores_of([section], runs, PLANNER).values()
    assert found.keys() == {run.run_id for run in runs}
    curriculum = Designer(level=level, distance=distance)  # type: ignore[arg-type]
    n = {"experiences": 3, "classes": 4}[level]
    for samples in (20, 10):
        same = [run for run in runs if run.config.stream["samples"] == samples]
        matrix = curriculum.distances(PLANNER.stream(same[0].config).without_test_data())
        assert matrix.shape == (n, n)
        expected = designer.scores(matrix, np.array([run.order for run in same]))
        assert [found[run.run_id] for run in same] == pytest.approx(expected.tolist(), abs=0)
    assert len(set(found.values())) > n


def test_scores_see_no_test_data() -> None:
    runs = plan_runs(spec(), PLANNER)
    assert scores_of([CURIOUS], runs, PLANNER) == {CURIOUS: {runs[0].run_id: 0.0}}


def test_a_search_without_final_runs_has_no_results_to_score(tmp_path: Path) -> None:
    # What `sweep` makes of tune.method=asha without final: its trials are no runs.
    given = spec({"lr": {"uniform": [0.1, 0.2]}}, tune={"method": "asha"}, scored_by=["designer"])
    scores = scores_of(given.scored_by, [], PLANNER)
    write_sweep(tmp_path, given, [Phase("tune", [])], "done", scores=scores)
    assert Sweep(given, tmp_path, [], [], 0.0).results().empty


# --- the page of made-up frames


def page(made: pd.DataFrame) -> str:
    return "".join(part for one in studies(made) for part in study_page.sections(one))


def test_the_page_says_it_in_tables_and_figures() -> None:
    scores = {"designer": designed(0, 4), "other": designed(1, 4)}
    text = page(frame(drawn(0), strategies=("er", "ewc"), scores=scores))
    assert text.count("<table>") == 1 + 1 + 3  # orders, shares, and what was foreseen of each
    assert text.count("<svg") == text.count("<figure>") == 4
    assert text.count(" foresees ") == 2
    assert text.count("which of two comes first") == 2 * 2  # accuracy and forgetting
    assert "1/24 at least" in text
    assert without_nan(text)
    plain = page(frame(drawn(0)))
    assert (plain.count("<table>"), plain.count("<svg")) == (2, 3)
    assert "foreseen" not in plain


def test_names_are_text_whatever_is_in_them() -> None:
    odd = "a<b>&amp;c \"d\" 'e' -- f $x_1$ $\\frac$ _g"
    made = frame(drawn(0), strategies=(odd, "<script>1</script>"), scores={odd: designed(0, 4)})
    whole = page(made.assign(**{"axis.stream": odd}))
    data = r'<script type="application/json" id="[^"]*">(.*?)</script>'
    tables = [json.loads(found) for found in re.findall(data, whole, flags=re.DOTALL)]
    points = [set(pd.read_csv(io.StringIO(found))["point"]) for found in tables]
    assert points == [{odd, "<script>1</script>"}] * 4
    text = re.sub(data, "", whole, flags=re.DOTALL)
    assert "a<b>" not in text
    assert "<script" not in text
    assert "a&lt;b&gt;&amp;amp;c" in text
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.parametrize("orders", [FOUR, THREE, some_orders(10, 30)], ids=["24", "6", "of ten"])
def test_a_single_seed_has_a_page_without_nan(orders: list[Order]) -> None:
    value = designed(0, len(orders[0]))
    text = page(frame(drawn(0), orders, 1, ("er", "ewc"), {"designer": value}))
    assert without_nan(text)
    assert text.count("<svg") == 3 + (orders == FOUR)  # the others are too few to fit pairs


def test_an_outcome_that_does_not_vary_has_a_page_without_nan() -> None:
    scores = {"designer": designed(0, 4)}  # joint forgets nothing, whatever the order
    made = frame(lambda *_: 0.25, scores=scores)
    assert without_nan(page(made))


@pytest.mark.parametrize("fails", ["best", "worst"])
def test_a_failed_run_leaves_a_page(fails: str) -> None:
    level, score = {"best": 0.9, "worst": 0.1}, {"s": designed(0, 4)}
    made = frame(lambda s, o, k: level[s] + o[0] / 100, strategies=list(level), scores=score)
    lost = (made["axis.strategy"] == fails) & (made["order"] == FOUR[7]) & (made["seed"] == 1)
    assert page(made[~lost]).count("<svg") == 4


def test_a_point_with_a_long_name_has_a_picture() -> None:
    long = "scheduled-replay memory_size=100 schedule=equal 0.05"
    assert page(frame(drawn(0), strategies=("er", long)))
