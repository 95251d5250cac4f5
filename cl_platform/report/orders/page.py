"""The report's section on orders: pictures, tables, and the answer in words."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from cl_platform.metrics.registry import metrics
from cl_platform.metrics.statistics import Interval
from cl_platform.report.comparisons import ACCURACY
from cl_platform.report.orders.left_out import LeftOut
from cl_platform.report.orders.pairs import (
    FORETOLD,
    LEFT_OUT,
    MARGIN,
    SPLITS,
    PairEffects,
    pair_effects,
    pair_sentences,
)
from cl_platform.report.orders.study import OUTCOMES, TOPS, PointStudy, Study, verdict
from cl_platform.report.page import figure, p_value, paragraph, table
from cl_platform.report.pictures import (
    overview_figure,
    pairs_figure,
    position_figure,
    prediction_figure,
)

FEW = 3  # orders whose reasons are not folded


def sections(study: Study) -> list[str]:
    """Return the part of the report about one stream."""
    seeds = study.points[0].seeds
    over = f"with 95 % intervals over {seeds} seeds" if seeds > 1 else "of one seed"
    slug = re.sub(r"\W+", "-", study.stream).strip("-")
    parts = [
        f"<h2>Orders of {html.escape(study.stream)}</h2>",
        figure(overview_figure(study), f"orders-{slug}", "Orders", _orders_data(study)),
        _orders_table(study.points),
        paragraph(
            f"Accuracy in %, {over}. The best of many "
            'orders is best partly by luck: "worth of picking" is the gain over the mean order, on '
            "each seed, of the order that is best on the others. Shares of variance are components "
            "of orders x seeds with bootstrap intervals over orders, a little too narrow: orders "
            'that begin alike share noise. "First item" is the share of the variance between '
            "orders that goes with what is learned first; its p is against the chance of seeds and "
            "of other orders, and needs several seeds and each item first equally often.",
            soft=True,
        ),
        *_legend(study.items),
        figure(position_figure(study), f"places-{slug}", "What where", _places_data(study)),
        *_pairs(study, slug),
        f"<details><summary>What the variance is made of</summary>{_shares_table(study.points)}"
        "</details>",
    ]
    if any(point.predictions for point in study.points):
        parts += [
            f"<h2>Was it foreseen? {html.escape(study.stream)}</h2>",
            *(paragraph(f"{verdict(study, score)}.") for score in study.scores),
            figure(
                prediction_figure(study),
                f"foreseen-{slug}",
                "Score and outcome",
                _orders_data(study),
            ),
            _predictions_table(study.points, "average_accuracy"),
            *(
                f"<details><summary>The same for {_title(outcome)}</summary>"
                f"{_predictions_table(study.points, outcome)}</details>"
                for outcome in OUTCOMES[1:]
            ),
            paragraph(_method(study), soft=True),
        ]
    return parts


def missing(found: Sequence[LeftOut]) -> Iterator[str]:
    """Yield which orders are left out, point by point; why each one is, folded."""
    for point in found:
        yield f"<p class=warn>{html.escape(f'{point}.')}</p>"
        lines = "".join(f"<li>{html.escape(f'{order}: {why}')}" for order, why in point.why.items())
        shown = " open" if len(point.why) <= FEW else ""
        yield f"<details{shown}><summary>Which, and why</summary><ul>{lines}</ul></details>"


def _pairs(study: Study, slug: str) -> list[str]:
    """Return how many orders foretell the others by which of two items comes first."""
    found = {
        point.point: {name: pair_effects(point.orders, point.outcomes[name]) for name in FORETOLD}
        for point in study.points
    }
    told = [paragraph(pair_sentences(p, found[p.point], study.items)) for p in study.points]
    drawn = {
        name: {point: effects for point, each in found.items() if (effects := each[name])}
        for name in FORETOLD
    }
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return told
    return [
        figure(pairs_figure(drawn), f"pairs-{slug}", "Orders not tried", _pairs_data(drawn)),
        *told,
        paragraph(
            "A linear model with an effect for each pair of items (one before the other) is fitted "
            f"on some orders and judged on {LEFT_OUT:.0%} left out; bands and brackets hold "
            f"95 % of {SPLITS} random splits. Enough are the fewest orders from which on R squared "
            f"stays within {MARGIN} of that of the most. Orders that begin alike share noise, and "
            "what is foretold of it counts as well.",
            soft=True,
        ),
    ]


def _title(outcome: str) -> str:
    """Return what more of is better."""
    metric = metrics()[outcome]
    return metric.title if metric.sign > 0 else f"little {metric.title}"


def _orders_data(study: Study) -> pd.DataFrame:
    """Return accuracy and scores by point and order."""
    return pd.DataFrame(
        [
            {
                "point": point.point,
                "order": " ".join(map(str, order)),
                "accuracy": point.means[i],
                **{f"score of {name}": values[i] for name, values in point.scores.items()},
            }
            for point in study.points
            for i, order in enumerate(point.orders.tolist())
        ]
    )


def _places_data(study: Study) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"point": point.point, "item": item, "place": place + 1, "accuracy": value}
            for point in study.points
            for item, row in zip(study.items, point.positions.tolist(), strict=True)
            for place, value in enumerate(row)
        ]
    )


def _pairs_data(found: Mapping[str, Mapping[str, PairEffects]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"outcome": name, "point": point, "orders": size, "R squared": fit.value}
            | {"low": fit.low, "high": fit.high}
            for name, points in found.items()
            for point, effects in points.items()
            for size, fit in zip(effects.sizes, effects.fits, strict=True)
        ]
    )


def _legend(items: Sequence[str]) -> list[str]:
    """Return what the numbers of items stand for, unless they are their names."""
    if all(name == str(i) for i, name in enumerate(items)):
        return []
    return [paragraph(f"{', '.join(f'{i}: {name}' for i, name in enumerate(items))}.", soft=True)]


def _orders_table(points: Sequence[PointStudy]) -> str:
    head = ["", "mean", "best order", "median order", "worst order", "worth of picking"]
    rows = [
        [
            point.point,
            f"{100 * point.means.mean():.1f}",
            *(
                f"{' '.join(map(str, order.order))}: {ACCURACY.text(order.accuracy)}"
                for order in (point.best, point.median, point.worst)
            ),
            ACCURACY.text(point.picked) if point.picked is not None else "-",
        ]
        for point in points
    ]
    return table(head, rows, words=1)


def _shares_table(points: Sequence[PointStudy]) -> str:
    head = ["share of the variance of", "", "order", "seed", "order x seed"]
    rows = [
        [_title(outcome), point.point] + [_share(part) for part in found.parts]
        for outcome in OUTCOMES
        for point in points
        if (found := point.shares.get(outcome)) is not None
    ]
    for point in points:
        if not math.isnan(point.first.share):
            first = f"{_percent(point.first.share)} (p {p_value(point.first.p)})"
            rows.append(["accuracy between orders: first item", point.point, first, "", ""])
    return table(head, rows, words=2)


def _predictions_table(points: Sequence[PointStudy], outcome: str) -> str:
    head = ["score", "", "rho", "p", "p (Holm)", "p (renamed)", "tau", "p (tau)"]
    tops = [k for k in TOPS if k in points[0].predictions[0].overlaps]
    head += [f"top {k}" for k in tops]
    rows = [
        [
            p.score,
            point.point,
            _two_digits(p.correlation.rho),
            *map(p_value, (p.correlation.p, p.adjusted, p.relabelled)),
            _two_digits(p.correlation.tau),
            p_value(p.correlation.tau_p),
            *("{} ({:.1f})".format(*p.overlaps[k]) for k in tops if k in p.overlaps),
        ]
        for point in points
        for p in point.predictions
        if p.outcome == outcome
    ]
    return table(head, sorted(rows, key=lambda row: row[0]), words=2)


def _method(study: Study) -> str:
    text = (
        "Spearman's rho and Kendall's tau of the score with the outcome averaged over seeds; "
        "positive where a higher score means more accuracy, less forgetting, more F. P by "
        "shuffling scores, which takes orders for independent, and corrected by Holm. "
    )
    if not math.isnan(study.points[0].predictions[0].relabelled):
        n = len(study.items)
        text += (
            '"Renamed" is stricter: the share of all namings of the items under which the score '
            f"does as well (1/{math.factorial(n)} at least), since orders that are alike have like "
            "scores and like outcomes. "
        )
    return text + "Top k: orders in the top k of both, and how many chance would put there."


def _two_digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _share(value: Interval) -> str:
    if math.isnan(value.low):
        return "-"
    return f"{_percent(value.value)} [{100 * value.low:.0f}, {100 * value.high:.0f}]"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"
