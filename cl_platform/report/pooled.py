"""Strategies compared over all that varies besides them: streams, orders, settings and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_platform.metrics.bounds import SHARE
from cl_platform.metrics.comparison import Difference, bounded_mean, compare
from cl_platform.metrics.statistics import Interval
from cl_platform.report.leaderboard import Measure, about_stream
from cl_platform.report.page import chart, p_value, paragraph, table
from cl_platform.report.points import axes_of
from cl_platform.report.runs import Runs
from cl_platform.report.tuning.trials import name_of

if TYPE_CHECKING:
    import pandas as pd

ACCURACY = Measure("average_accuracy")
FULL = 0.5  # of the runs of the strategy with most, which another needs to be compared


@dataclass(frozen=True)
class Pooled:
    """A strategy over all that it has in common with the others.

    Args:
        accuracy: the mean over seeds of each seed's mean over all else, streams weighing alike.
        difference: from the best strategy, paired over seeds; None for the best one.
        p: of that difference, after Holm's correction for all pairs.
        wins: in how many of the runs with the same settings, order and seed it is better than the
            best strategy, and out of how many; ties count half.
        streams: mean accuracy by stream.
    """

    name: str
    accuracy: Interval
    difference: Difference | None
    p: float
    wins: tuple[float, int]
    streams: dict[str, float]


@dataclass(frozen=True)
class Pool:
    """The comparison.

    Args:
        strategies: the best one first.
        over: what is pooled, in words.
        left_out: strategies that have too few of the runs, each with how many.
    """

    strategies: Sequence[Pooled]
    over: str
    left_out: dict[str, str]


def pool(runs: Runs) -> Pool | None:
    """Return the strategies' comparison over all other axes; None with a single strategy, where
    nothing else varies but the seed, or where they have no settings in common.

    Of tuned sweeps the chosen settings are part of the strategy: each has its own.
    """
    if runs.frame.empty:
        return None
    frame, axes = _cells(runs)
    table = frame.pivot_table(
        index=[*axes, "_order", "_stream", "_seed"], columns="_strategy", values=ACCURACY.key
    )
    counts = table.notna().sum()
    full = counts[counts >= FULL * counts.max()].index
    common = table[full].dropna()
    if (
        len(full) < 2
        or common.empty
        or len(common) == common.index.get_level_values("_seed").nunique()
    ):
        return None
    left_out = {
        name: f"{counts[name]} of {counts.max()} runs" for name in counts.index.difference(full)
    }
    return Pool(_strategies(common), _over(common, axes), left_out)


def _cells(runs: Runs) -> tuple[pd.DataFrame, list[str]]:
    """Return the frame with the parts of a cell, and the axes that are settings of one."""
    chosen = runs.sweep.get("chosen") or [{}]
    compared = chosen[0].get("group")
    own = ("axis.strategy", "axis.curriculum")
    axes = [
        axis
        for axis in axes_of(runs.frame)
        if axis not in own
        and not about_stream(axis.removeprefix("axis."))
        and not axis.startswith("axis.strategy.")
        and (compared is None or axis.removeprefix("axis.") in compared)
    ]
    frame = runs.frame
    streams = [a for a in axes_of(frame) if about_stream(a.removeprefix("axis."))]
    names = [result.stream for result in runs.results]
    if streams:
        names = frame[streams].astype(str).agg(" ".join, axis=1).tolist()
    order = frame.get("axis.curriculum", "")
    strategy = frame["axis.strategy"] if "axis.strategy" in frame else frame["strategy.name"]
    if compared is not None and "strategy" in compared:  # its parameters are chosen as well
        strategy = strategy.map(name_of)
    return (
        frame.assign(_order=order, _stream=names, _seed=frame["seed"], _strategy=strategy)
        .astype(dict.fromkeys(axes, str)),
        axes,
    )  # fmt: skip


def _strategies(common: pd.DataFrame) -> list[Pooled]:
    """Return the strategies of a table of accuracies without holes: cells x strategies."""
    by_seed = common.groupby(level=["_seed", "_stream"]).mean().groupby(level="_seed").mean()
    by_stream = common.groupby(level="_stream").mean()
    scores = {str(name): by_seed[name].to_dict() for name in common}
    found = compare(scores, bounds=SHARE)
    (best,) = scores.keys() - found.keys()
    rows = []
    for name in common:
        difference, p = found.get(str(name), (None, math.nan))
        ahead = common[name] - common[best]
        wins = float((ahead > 0).sum() + (ahead == 0).sum() / 2)
        rows.append(
            Pooled(
                str(name),
                bounded_mean(by_seed[name].to_numpy(), SHARE),
                difference,
                p,
                (wins, len(common)),
                {str(stream): float(v) for stream, v in by_stream[name].items()},
            )
        )
    return sorted(rows, key=lambda row: -row.accuracy.value)


def _over(common: pd.DataFrame, axes: Sequence[str]) -> str:
    """Return what is pooled: ``2 streams, 3 orders, 3 seeds``."""
    levels = {"_stream": "stream", "_order": "order", **{a: f"value of {a[5:]}" for a in axes}}
    counts = {k: common.index.get_level_values(k).nunique() for k in (*levels, "_seed")}
    words = [
        f"{counts[k]} {word.replace('value', 'values') if 'value' in word else f'{word}s'}"
        for k, word in levels.items()
        if counts[k] > 1
    ]
    seeds = counts["_seed"]
    return ", ".join([*words, f"{seeds} seed{'s' * (seeds > 1)}"])


def sections(found: Pool) -> Iterator[str]:
    """Yield the comparison, for all to see."""
    best = next(row for row in found.strategies if row.difference is None)
    yield "<h2>Strategies, over everything else</h2>"
    yield chart("pooled", f"Mean accuracy over {found.over}")
    head = ["strategy", "accuracy %", "less than the best by", "effect", "p", "p (Holm)", "wins"]
    yield table(head, [_cells_of(row) for row in found.strategies], words=1)
    yield paragraph(
        f"Each seed's mean over all that is pooled ({found.over}; only what all have in common, "
        f"{best.wins[1]} runs each; streams weigh alike), with 95 % intervals over seeds and "
        f"differences from {best.name} paired over seeds; effect: Hedges' g; p of the paired t "
        "test, corrected for all pairs. Wins: in how many runs with equal settings, order and seed "
        f"it is ahead of {best.name}. Small marks are single streams.",
        soft=True,
    )
    if found.left_out:
        names = "; ".join(f"{name}: {count}" for name, count in found.left_out.items())
        yield paragraph(f"Left out, with too few runs: {names}.", soft=True)


def _cells_of(row: Pooled) -> list[str]:
    start = [row.name, ACCURACY.text(row.accuracy)]
    if row.difference is None:
        return [*start, "the best", "", "", "", ""]
    less = row.difference.difference
    shown = ACCURACY.text(Interval(-less.value, -less.high, -less.low))
    effect = "-" if math.isnan(row.difference.effect) else f"{-row.difference.effect:.2f}"
    wins = f"{row.wins[0]:g} of {row.wins[1]}"
    return [*start, shown, effect, p_value(row.difference.p), p_value(row.p), wins]


def data(found: Pool | None) -> list[dict[str, Any]]:
    """Return what the page's script draws: in %."""

    def percent(value: float) -> float | None:
        return None if math.isnan(value) else round(100 * value, 2)

    return [
        {
            "name": row.name,
            "accuracy": [
                percent(v) for v in (row.accuracy.value, row.accuracy.low, row.accuracy.high)
            ],
            "streams": {name: percent(value) for name, value in row.streams.items()},
        }
        for row in (found.strategies if found else ())
    ]
