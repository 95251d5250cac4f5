"""Points: results by the values of their axes, over seeds; and how much the order mattered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cl_platform.metrics.statistics import components

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("average_accuracy", "forgetting", "learning_accuracy")
"""The metrics in tables on the console and on W&B; the first one decides what is best."""


def by_point(frame: pd.DataFrame, *apart: str) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Return the runs of each point of the axes but the seed (and the axes `apart`), best first."""
    axes = axes_of(frame, *apart)
    groups: list[tuple[tuple[str, ...], pd.DataFrame]] = [((), frame)]
    if axes:
        grouped = frame.groupby(axes, sort=False, dropna=False)
        groups = [(tuple(map(str, point)), group) for point, group in grouped]
    return sorted(groups, key=lambda group: -group[1][METRICS[0]].mean())


def for_table(
    frame: pd.DataFrame, most: int
) -> tuple[list[str], list[tuple[tuple[str, ...], pd.DataFrame]]]:
    """Return the axes of a table and its rows as :func:`by_point`.

    The orders of a row are put together if there would be more than `most` rows.
    """
    groups = by_point(frame)
    apart = ("curriculum",) if len(groups) > most else ()
    axes = [axis.removeprefix("axis.") for axis in axes_of(frame, *apart)]
    return axes, by_point(frame, *apart) if apart else groups


def axes_of(frame: pd.DataFrame, *apart: str) -> list[str]:
    """Return the columns of the axes but the seed (and the axes `apart`)."""
    without = {f"axis.{name}" for name in ("seed", *apart)}
    return [c for c in frame.columns if c.startswith("axis.") and c not in without]


def spread(values: pd.Series) -> str:
    """Return mean and standard deviation in percent: ``81.2 ± 0.4``."""
    mean = f"{100 * values.mean():.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * values.std():.1f}"


@dataclass(frozen=True)
class OrderEffect:
    """The effect of the order on one point of the other axes.

    Args:
        point: of the axes other than curriculum and seed.
        means: the metric by order, averaged over seeds, best first.
        deviations: its standard deviation over seeds, by order; nan with a single seed.
        between: standard deviation over orders, less what chance explains of it.
        compared: how many orders that is about: where two or more have every seed, those.
        within: standard deviation over the seeds of an order, pooled; nan with a single seed.
    """

    point: str
    means: pd.Series
    deviations: pd.Series
    between: float
    compared: int
    within: float

    def __str__(self) -> str:
        best, worst = self.means.index[0], self.means.index[-1]
        single = self.within != self.within
        seeds = "" if single else f", the seed by {100 * self.within:.1f}"
        less = "" if single else ", less what chance explains"
        moved = f"{100 * self.between:.1f} points (sd over {self.compared} orders{less})"
        return (
            f"{self.point}: the order moves accuracy by {moved}{seeds}; from "
            f"{100 * self.means.iloc[-1]:.1f} ({worst}) to {100 * self.means.iloc[0]:.1f} ({best})"
        )


def order_effects(frame: pd.DataFrame) -> list[OrderEffect]:
    """Return the effect of the order at each point of the other axes, if there are several."""
    if "axis.curriculum" not in frame or frame["axis.curriculum"].nunique() < 2:
        return []
    effects = []
    for point, group in by_point(frame, "curriculum"):
        by_order = group.groupby("axis.curriculum", sort=False)[METRICS[0]]
        means = by_order.mean().sort_values(ascending=False)
        if len(means) < 2:
            continue
        name = " ".join(point) or str(group["strategy.name"].iloc[0])
        free = by_order.count() - 1
        noise = float((by_order.var().fillna(0) * free).sum() / free.sum()) if free.sum() else 0.0
        within = noise**0.5 if free.sum() else float("nan")
        table = group.groupby(["axis.curriculum", "seed"])[METRICS[0]].mean().unstack()
        whole = table.dropna()
        if min(whole.shape) > 1:  # the seeds' own effect is the same for all orders: no part of it
            found, compared = components(whole.to_numpy(), resamples=0), len(whole)
            between = (found.rows.value * found.total) ** 0.5
        else:
            compared, noise_of_means = len(means), noise * float((1 / by_order.count()).mean())
            between = max(0.0, float(means.var()) - noise_of_means) ** 0.5
        effects.append(OrderEffect(name, means, by_order.std(), between, compared, within))
    return effects
