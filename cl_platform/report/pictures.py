"""Pictures of many runs, as matplotlib figures: of orders, of ranks and scores over streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cl_platform.metrics.improvement import Profile
from cl_platform.metrics.ranking import Ranking
from cl_platform.metrics.registry import metrics
from cl_platform.report.orders.pairs import PairEffects
from cl_platform.report.orders.study import PointStudy, Study
from cl_platform.report.points import OrderEffect
from cl_platform.results.plots import literal, new_figure

WIDEST, MOST_UPRIGHT = 60, 6  # orders shown by name, and of these without turning the names
SHARES = {"order": "#3b6fb6", "seed": "#e08a3c", "order x seed": "#b9bec7"}
TICK, LONGEST = 14, 40  # letters of a name
APART = 0.25  # of the distance between two orders, to either side
BANDS = 3  # of profiles that are drawn


def order_figure(effects: Sequence[OrderEffect]) -> Any:
    """Draw accuracy by order, side by side for the points of the other axes: orders are names, and
    nothing lies between them that a line could show."""
    orders = list(effects[0].means.index)
    figure = new_figure(8, 4 + 0.2 * len(effects))
    axes = figure.subplots()
    places = np.arange(len(orders))
    apart = np.linspace(-APART, APART, len(effects)) if len(effects) > 1 else [0.0]
    for effect, beside in zip(effects, apart, strict=True):
        values = 100 * effect.means.reindex(orders)
        bars = 100 * effect.deviations.reindex(orders).fillna(0)
        axes.errorbar(
            places + beside,
            values,
            bars,
            fmt="o",
            markersize=3,
            elinewidth=1,
            label=_short(effect.point, 2 * LONGEST),
        )
    _plain(axes)
    axes.set_ylabel("average accuracy in %")
    first = f", best first for {_short(effects[0].point, LONGEST)}" if len(effects) > 1 else ""
    axes.set_xlabel(f"order of learning{first}; bars: sd over seeds", fontsize=9)
    if len(orders) <= WIDEST:
        crowded: dict[str, Any] = (
            {"rotation": 90, "fontsize": 7} if len(orders) > MOST_UPRIGHT else {}
        )
        axes.set_xticks(range(len(orders)), map(literal, orders), **crowded)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    return figure


def overview_figure(study: Study) -> Any:
    """Draw accuracy by order, the shares of its variance, and whether the points agree."""
    figure = new_figure(11, max(3.6, 0.3 * len(study.points) + 1.2))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    for point in study.points:
        left.plot(100 * np.sort(point.means)[::-1], label=_short(point.point))
    _plain(left)
    left.set(xlabel="orders, each line from its best to its worst", ylabel="average accuracy in %")
    left.legend(frameon=False)
    _shares(middle, study.points)
    _agreement(right, study)
    return figure


def position_figure(study: Study) -> Any:
    """Draw for each point accuracy averaged over the orders with an item at a position."""
    points = study.points
    figure = new_figure(2.6 * len(points) + 1.2, 3.2)
    for axes, point in zip(figure.subplots(1, len(points), squeeze=False)[0], points, strict=True):
        values = 100 * (point.positions - point.means.mean())
        reach = max(0.05, float(np.nanmax(np.abs(values))))
        image = axes.imshow(values, cmap="RdBu", vmin=-reach, vmax=reach)
        n = len(values)
        axes.set_title(_short(point.point), fontsize=10)
        axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
        shown = [_short(name) for name in study.items] if point is points[0] else [""] * n
        axes.set_yticks(range(n), shown)
        axes.set_xlabel("place")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("accuracy above the mean in %")
    return figure


def pairs_figure(found: Mapping[str, Mapping[str, PairEffects]]) -> Any:
    """Draw R squared by the number of orders fitted, for each outcome (outer keys) and point."""
    figure = new_figure(4.2 * len(found) + 1.2, 3.2)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (outcome, points) in zip(panels, found.items(), strict=True):
        for point, effects in points.items():
            (line,) = axes.plot(
                effects.sizes,
                [f.value for f in effects.fits],
                marker="o",
                ms=3,
                label=_short(point),
            )
            low, high = ([getattr(f, end) for f in effects.fits] for end in ("low", "high"))
            axes.fill_between(effects.sizes, low, high, color=line.get_color(), alpha=0.12, lw=0)
        axes.axhline(0, color="#555", linewidth=0.8)
        axes.set(ylim=(-1, 1.05), xlabel="orders fitted on", title=metrics()[outcome].title)
        _plain(axes)
    panels[0].set_ylabel("R\N{SUPERSCRIPT TWO} on the orders left out")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def prediction_figure(study: Study) -> Any:
    """Draw accuracy by score: a row of panels for each score, a column for each point."""
    names, points = list(study.scores), study.points
    figure = new_figure(2.5 * len(points) + 0.8, 2.2 * len(names) + 0.4)
    grid = figure.subplots(len(names), len(points), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        for axes, point in zip(row, points, strict=True):
            axes.scatter(point.scores[name], 100 * point.means, s=7, alpha=0.6, linewidths=0)
            rho = next(
                p.correlation.rho
                for p in point.predictions
                if p.score == name and p.outcome == "average_accuracy"
            )
            title = f"{_short(point.point)}\n" if name == names[0] else ""
            shown = "" if np.isnan(rho) else f"rho {rho:.2f}"
            axes.set_title(f"{title}{shown}", fontsize=9)
            _plain(axes)
            axes.tick_params(labelsize=8)
        row[0].set_ylabel("accuracy in %", fontsize=9)
        row[len(row) // 2].set_xlabel(f"score of {literal(name)}", fontsize=9)
    return figure


def ranking_figure(ranking: Ranking) -> Any:
    """Draw mean ranks on a line, with bars that join those that do not differ (Demsar 2006)."""
    n, bars = len(ranking.names), len(ranking.groups)
    figure = new_figure(8, 1.4 + 0.22 * n + 0.15 * bars)
    axes = figure.subplots()
    axes.set(xlim=(n + 0.1, 0.9), ylim=(-(n + 1) / 2 - 0.5 * bars - 0.5, 0.9), yticks=[])
    axes.xaxis.tick_top()
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.set_title("mean rank over streams (1 is best)", fontsize=10)
    for i, (name, place) in enumerate(zip(ranking.names, ranking.ranks, strict=True)):
        first = i < (n + 1) // 2
        depth = -0.5 * bars - 0.6 - (i if first else n - 1 - i)
        edge = 0.95 if first else n + 0.05
        axes.plot([place, place, edge], [0.9, depth, depth], color="#555", linewidth=0.8)
        label = f"{_short(name, LONGEST)} ({place:.2f})"
        axes.text(edge, depth + 0.08, label, ha="right" if first else "left", va="bottom")
    for i, group in enumerate(ranking.groups):
        ranks = [ranking.ranks[ranking.names.index(name)] for name in group]
        axes.plot(
            [min(ranks) - 0.02, max(ranks) + 0.02], [0.3 - 0.5 * i] * 2, color="#3b6fb6", lw=4
        )
    return figure


def profiles_figure(profiles: Mapping[str, Profile]) -> Any:
    """Draw the share of runs above each accuracy, with pointwise bands (Agarwal et al. 2021)."""
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    for i, (name, found) in enumerate(profiles.items()):
        x, y = 100 * found.taus, 100 * found.value
        (line,) = axes.plot(x, y, drawstyle="steps-post", label=_short(name, LONGEST))
        if i < BANDS:  # more would hide each other
            low, high, colour = 100 * found.low, 100 * found.high, line.get_color()
            axes.fill_between(x, low, high, step="post", color=colour, alpha=0.1, lw=0)
    axes.set(xlabel="accuracy in %", ylabel="runs that are above it in %", ylim=(-2, 102))
    _plain(axes)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _shares(axes: Any, points: Sequence[PointStudy]) -> None:
    names = [_short(p.point) for p in points]
    left = np.zeros(len(points))
    found = [p.shares.get("average_accuracy") for p in points]
    for part, (label, colour) in enumerate(SHARES.items()):
        values = np.array([100 * f.parts[part].value if f is not None else 0 for f in found])
        axes.barh(range(len(points)), values, left=left, color=colour, label=label, height=0.6)
        left = left + values
    axes.set_yticks(range(len(points)), names)
    axes.invert_yaxis()
    axes.set(xlabel="variance of accuracy in %", xlim=(0, 100))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)


def _agreement(axes: Any, study: Study) -> None:
    """Draw correlations; on the diagonal what a repetition with other seeds would give."""
    values = study.agreement.copy()
    np.fill_diagonal(values, study.ceiling)
    axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    names = [_short(p.point) for p in study.points]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 else "black"
        text = "-" if np.isnan(value) else f"{value:.2f}"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_title("rho of accuracy by order\n(diagonal: with itself, other seeds)", fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _plain(axes: Any) -> None:
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str, width: int = TICK) -> str:
    return literal(name if len(name) <= width else f"{name[: width - 1]}\N{HORIZONTAL ELLIPSIS}")
