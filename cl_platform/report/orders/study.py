"""The study of orders: how much they matter, which ones, why, and whether a designer foresaw it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform.metrics.bounds import SHARE, SIGNED
from cl_platform.metrics.comparison import bounded_mean
from cl_platform.metrics.registry import metrics
from cl_platform.metrics.statistics import (
    Components,
    Correlation,
    Interval,
    components,
    correlation,
    cut,
    group_test,
    holm,
    mean_interval,
    permutation_p,
    spearman,
)
from cl_platform.report.points import by_point
from cl_platform.results.result import Result
from cl_platform.storage.files import location

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = ("average_accuracy", "forgetting", "curriculum.f")  # what orders are compared by
SIGNIFICANT = 0.05
FEWEST = 6  # orders that are worth a study
TOPS = (10, 20, 50)
DIGITS = 12  # beyond which accuracies differ by the order of summation
EXACT = 7  # items whose relabellings are all tried: 5040


@dataclass(frozen=True)
class Order:
    """An order and what it gave, averaged over seeds, with a 95 % interval."""

    order: tuple[int, ...]
    accuracy: Interval


@dataclass(frozen=True)
class First:
    """How much of the variance between orders goes with their first item.

    Args:
        p: that it is more than chance; orders with the same first item share the state after it,
            and its noise: see :func:`cl_platform.metrics.statistics.group_test`. nan with a single
            seed, and unless each item is first in equally many orders, two at least.
    """

    share: float
    p: float


@dataclass(frozen=True)
class Prediction:
    """How well a score foresaw an outcome.

    Args:
        correlation: over orders, of the score with the outcome averaged over seeds.
        adjusted: p of rho, corrected (Holm) for all predictions of the study.
        relabelled: p of rho among all renamings of the items, exact. It is the stricter test:
            orders that begin alike have like scores and like outcomes, which shuffling ignores.
            With n items it is 1/n! at least. nan unless there are all orders of a few items.
        overlaps: orders that are in the top k of both, and how many chance would put there, by k.
    """

    score: str
    outcome: str
    correlation: Correlation
    adjusted: float
    relabelled: float
    overlaps: Mapping[int, tuple[int, float]]


@dataclass(frozen=True, eq=False)
class PointStudy:
    """The orders at one point of the other axes.

    Args:
        orders: (N, n) as learned; means: (N,) accuracy averaged over seeds.
        outcomes: the same of each outcome, by name.
        shares: of the variance of each outcome: order, seed, and their interaction; empty with a
            single seed.
        best, median, worst: by accuracy; the best of many is partly luck.
        picked: accuracy above the mean order, on each seed, of the order that is best on all other
            seeds: what picking an order is worth. None with a single seed.
        positions: (n, n) accuracy averaged over the orders with item i at place k.
        scores: of the orders, by name.
        predictions: by each score of each outcome.
    """

    point: str
    orders: np.ndarray
    seeds: int
    means: np.ndarray
    outcomes: Mapping[str, np.ndarray]
    shares: Mapping[str, Components]
    best: Order
    median: Order
    worst: Order
    picked: Interval | None
    first: First
    positions: np.ndarray
    scores: Mapping[str, np.ndarray]
    predictions: Sequence[Prediction]


@dataclass(frozen=True, eq=False)
class Study:
    """The orders of one stream.

    Args:
        items: names of what is ordered.
        agreement: Spearman's rho of accuracy by order between each two points.
        ceiling: the rho to be expected of two repetitions of a point with other seeds; nan with a
            single seed.
        scores: their names.
    """

    stream: str
    items: Sequence[str]
    points: Sequence[PointStudy]
    agreement: np.ndarray
    ceiling: np.ndarray
    scores: Sequence[str]


def studies(frame: pd.DataFrame) -> list[Study]:
    """Return a study of each stream that was learned in at least six orders, at each point.

    Args:
        frame: as :func:`cl_platform.report.runs.read_runs` gives it.
    """
    if frame.empty or "axis.curriculum" not in frame:
        return []
    apart = [c for c in frame.columns if c in ("axis.stream", "axis.scenario")]
    apart += [c for c in frame.columns if c.startswith("axis.stream.")]
    # Orders of experiences and of classes are different things, and so are those of other lengths.
    frame = frame.assign(_items=[f"{len(order)} items" for order in frame["order"]])
    kinds = [c for c in ("_items", "curriculum.level") if c in frame and frame[c].nunique() > 1]
    by = [*apart, *kinds]
    groups = [("", frame)]
    if by:
        grouped = frame.groupby(by, sort=False, dropna=False)
        groups = [(" ".join(map(str, values)), group) for values, group in grouped]
    found = [_study(stream, group, apart) for stream, group in groups]
    return [study for study in found if study is not None]


def verdict(study: Study, score: str) -> str:
    """Return a sentence on whether a score predicted the results of the orders."""
    mine = [p for point in study.points for p in point.predictions if p.score == score]
    total = sum(len(point.predictions) for point in study.points)
    right = sum(_holds(p) and p.correlation.rho > 0 for p in mine)
    wrong = sum(_holds(p) and p.correlation.rho < 0 for p in mine)
    strict = not any(math.isnan(p.relabelled) for p in mine)
    return (
        f"{score} foresees {right} of {len(mine)} outcomes, {wrong} the wrong way round (p < "
        f"{SIGNIFICANT} by shuffling, corrected for {total} comparisons"
        f"{', and by itself under renaming' if strict else ''})"
    )


def _holds(prediction: Prediction) -> bool:
    strict = math.isnan(prediction.relabelled) or prediction.relabelled < SIGNIFICANT
    return prediction.adjusted < SIGNIFICANT and strict


def _study(stream: str, frame: pd.DataFrame, apart: Sequence[str]) -> Study | None:
    names = [axis.removeprefix("axis.") for axis in apart]
    tables = {}
    for point, group in by_point(frame, "curriculum", *names):
        complete = _tables(group)
        if complete is not None:
            name = " ".join(point) or str(group["strategy.name"].iloc[0])
            tables[name] = complete
    if not tables:
        return None
    scored = {
        column.removeprefix("score."): frame.groupby("order")[column].first().to_dict()
        for column in frame.columns
        if column.startswith("score.")
    }
    points = _adjusted([_point(name, table, scored) for name, table in tables.items()])
    accuracies = [table["average_accuracy"] for table in tables.values()]
    common = sorted(set.intersection(*(set(t.index) for t in accuracies)))
    means = np.stack([t.loc[common].mean(axis=1) for t in accuracies])
    n = len(means)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    rho = spearman(means[[i for i, _ in pairs]], means[[j for _, j in pairs]])
    return Study(
        stream or str(frame["stream.name"].iloc[0]),
        _items(frame),
        points,
        rho.reshape(n, n),
        np.array([_ceiling(point) for point in points]),
        list(scored),
    )


def _tables(group: pd.DataFrame) -> dict[str, pd.DataFrame] | None:
    """Return each outcome by order and seed, for orders with every seed; None if those are few."""
    grouped = group.groupby(["order", "seed"], sort=False)
    tables = {outcome: grouped[outcome].mean().unstack().round(DIGITS) for outcome in OUTCOMES}
    rows = tables["average_accuracy"].dropna().index
    if len(rows) < FEWEST:
        return None
    return {outcome: table.loc[rows] for outcome, table in tables.items()}


def _point(
    name: str, tables: Mapping[str, pd.DataFrame], scored: Mapping[str, Mapping[Any, float]]
) -> PointStudy:
    accuracy = tables["average_accuracy"]
    orders = np.array([list(order) for order in accuracy.index])
    outcomes = {
        outcome: table.mean(axis=1, skipna=False).round(DIGITS).to_numpy()
        for outcome, table in tables.items()
    }
    means = outcomes["average_accuracy"]
    seeds = accuracy.shape[1]
    ranked = np.argsort(-means, kind="stable")
    scores = {
        score: np.array([values[tuple(order)] for order in orders.tolist()])
        for score, values in scored.items()
    }

    def at(place: int) -> Order:
        row = ranked[place]
        return Order(
            tuple(map(int, orders[row])), bounded_mean(accuracy.iloc[row].to_numpy(), SHARE)
        )

    return PointStudy(
        point=name,
        orders=orders,
        seeds=seeds,
        means=means,
        outcomes=outcomes,
        shares={
            outcome: components(table.to_numpy())
            for outcome, table in tables.items()
            if seeds > 1 and not table.isna().any(axis=None)
        },
        best=at(0),
        median=at(len(ranked) // 2),
        worst=at(-1),
        picked=_picked(accuracy.to_numpy()) if seeds > 1 else None,
        first=_first(orders, accuracy.to_numpy()),
        positions=_positions(orders, means),
        scores=scores,
        predictions=list(_predictions(outcomes, orders, scores, scored)),
    )


def _picked(accuracy: np.ndarray) -> Interval:
    gains = []
    for seed in range(accuracy.shape[1]):
        others = np.delete(accuracy, seed, axis=1).mean(1)
        gains.append(accuracy[others.argmax(), seed] - accuracy[:, seed].mean())
    return cut(mean_interval(gains), *SIGNED)


def _first(orders: np.ndarray, accuracy: np.ndarray) -> First:
    """Return the correlation ratio of the first item, with its p.

    Args:
        accuracy: (N, seeds).
    """
    means = accuracy.mean(1)
    spread = ((means - means.mean()) ** 2).sum()
    if spread <= len(means) * 10.0 ** (-2 * DIGITS):
        return First(float("nan"), float("nan"))
    groups = [accuracy[orders[:, 0] == item] for item in np.unique(orders[:, 0])]
    between = sum(len(each) * (each.mean() - means.mean()) ** 2 for each in groups)
    p = float("nan")
    if len({len(each) for each in groups}) == 1:
        table = np.stack(groups)
        p = group_test(table) if min(table.shape) > 1 else p
    return First(float(between / spread), p)


def _positions(orders: np.ndarray, means: np.ndarray) -> np.ndarray:
    n = orders.shape[1]
    found = np.full((n, n), np.nan)
    for item in range(n):
        for place in range(n):
            mine = orders[:, place] == item
            if mine.any():
                found[item, place] = means[mine].mean()
    return found


def _predictions(
    outcomes: Mapping[str, np.ndarray],
    orders: np.ndarray,
    scores: Mapping[str, np.ndarray],
    scored: Mapping[str, Mapping[Any, float]],
) -> Iterator[Prediction]:
    for score, x in scores.items():
        rows = _relabelled(orders, scored[score])
        for outcome in OUTCOMES:  # a score that foresees one correlates positively with y
            y = metrics()[outcome].sign * outcomes[outcome]
            if np.isnan(y).any():  # the forgetting of a single experience
                continue
            found = correlation(x, y)
            exact = permutation_p(rows, y) if rows is not None else float("nan")
            overlaps = {k: _overlap(x, y, k) for k in TOPS if k < len(x)}
            yield Prediction(score, outcome, found, found.p, exact, overlaps)


def _relabelled(orders: np.ndarray, values: Mapping[Any, float]) -> np.ndarray | None:
    """Return the scores under every renaming of the items, their own first; needs all orders."""
    n = orders.shape[1]
    if n > EXACT or len(orders) < math.factorial(n):
        return None
    return np.array(
        [
            [values[tuple(renamed)] for renamed in np.array(names)[orders]]
            for names in permutations(range(n))
        ]
    )


def _overlap(x: np.ndarray, y: np.ndarray, k: int) -> tuple[int, float]:
    tops = [set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (x, y)]
    return len(tops[0] & tops[1]), k * k / len(x)


def _adjusted(points: Sequence[PointStudy]) -> list[PointStudy]:
    """Return the points with p-values corrected for all predictions of the study."""
    flat = [p for point in points for p in point.predictions]
    values = iter(holm([p.correlation.p for p in flat]))
    return [
        replace(point, predictions=[replace(p, adjusted=next(values)) for p in point.predictions])
        for point in points
    ]


def _ceiling(point: PointStudy) -> float:
    """Return the reliability of means over seeds: variance of orders over that of means."""
    found = point.shares.get("average_accuracy")
    if found is None:
        return float("nan")
    total = found.rows.value + found.interaction.value / point.seeds
    return found.rows.value / total if total > 0 else float("nan")


def _items(frame: pd.DataFrame) -> list[str]:
    """Return the names of the experiences or classes, by their number."""
    order = frame["order"].iloc[0]
    result = Result.load(location(frame["path"].iloc[0]))
    names = {i: str(i) for i in order}
    if result is not None and len(result.experiences) == len(order):
        names = {i: e["name"] for i, e in zip(order, result.experiences, strict=True)}
    return [names[i] for i in sorted(names)]
