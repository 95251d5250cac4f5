"""The rows of a leaderboard: the points of a sweep, each with intervals over its seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix, evenly
from cl_platform.metrics.bounds import SHARE
from cl_platform.metrics.comparison import Difference, against_best, bounded_mean
from cl_platform.metrics.matrix_metrics import accuracy_so_far
from cl_platform.metrics.registry import Metric, find_metric, metrics
from cl_platform.metrics.statistics import Interval
from cl_platform.report.points import axes_of, by_point
from cl_platform.report.runs import Runs
from cl_platform.results.budget import LIMITS

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
LONGEST = 100  # points of a curve: of a long stream, some of its rows
Curve = list[tuple[int, float]]
OWN_PARTS = ("strategy", "curriculum")  # axes with a part of a row to themselves

COLUMNS = {
    "average_accuracy": True,
    "forgetting": True,
    "learning_accuracy": True,
    "average_incremental_accuracy": False,
    "anytime_accuracy": True,
    "zero_shot_retention": True,
    "task/zero_shot_retention": True,
    "knowledge_accumulation": False,
    "accumulation_and_retention": False,
    "probe_accuracy": True,
    "low_shot_transfer": False,
    "mtil.transfer": False,
    "backward_transfer": False,
    "forward_transfer": False,
    "task/forward_transfer": False,
    "intransigence": True,
    "forward_transfer_from_experts": False,
    "task/forward_transfer_from_experts": True,
    "normalised_transfer": False,
    "normalised_forgetting": False,
    "min_accuracy": True,
    "worst_case_accuracy": True,
    "windowed_forgetting_10": True,
    "windowed_forgetting_100": False,
    "windowed_plasticity_10": False,
    "windowed_plasticity_100": False,
    "active_units": True,
    "dead_units": True,
    "effective_rank": True,
    "stable_rank": False,
    "weight_norm": False,
    "trainability": True,
    "calibration_error": True,
    "top5_accuracy": False,
    "macro_f1": False,
    "auc": False,
    "negative_flips": False,
    "cost.train_seconds": True,
    "cost.flops": True,
    "cost.energy_joules": True,
    "cost.stored_bytes": True,
    "cost.memory_bytes": False,
    "cost.peak_memory_bytes": False,
    "cost.trainable_parameters": False,
}
"""What reports show of results, in this order: in tables, or only in pictures. Metrics that do not
come with the platform are shown in tables, before the costs."""
FEW_SHOT = {
    "few_shot.average_accuracy": True,
    "few_shot.last_accuracy": True,
    "few_shot.performance_drop": True,
    "few_shot.base_accuracy": False,
    "few_shot.new_accuracy": False,
    "few_shot.harmonic_mean": True,
}  # where there are sessions of few shots
SHOWN_AS = {
    "fraction": (100, "%"),
    "FLOP": (1e-9, "GFLOP"),
    "B": (1e-6, "MB"),
    "parameters": (1e-3, "k"),
}


@dataclass(frozen=True)
class Measure:
    """A column of results as reports show it.

    Args:
        key: its name there: a metric's, after its mask if that is not the scenario's own.
        listed: whether tables show it, and not only pictures.
    """

    key: str
    listed: bool = True

    @cached_property
    def metric(self) -> Metric:
        return find_metric(self.key.rpartition("/")[2])

    @property
    def name(self) -> str:
        mask = self.key.rpartition("/")[0]
        return f"{self.metric.title} ({mask})" if mask else self.metric.title

    @property
    def scale(self) -> float:
        """The factor by which values are multiplied before they are shown in :attr:`unit`."""
        return SHOWN_AS.get(self.metric.unit, (1, ""))[0]

    @property
    def unit(self) -> str:
        return SHOWN_AS.get(self.metric.unit, (1, self.metric.unit))[1]

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def shown(self, value: float) -> str:
        """Return a value as text, without its unit."""
        if math.isnan(value):
            return "-"
        value *= self.scale
        if self.unit == "%":
            return f"{value:.1f}"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    def text(self, value: Interval) -> str:
        """Return a value with its interval: ``81.2 [79.9, 82.5]``."""
        if math.isnan(value.low):
            return self.shown(value.value)
        return f"{self.shown(value.value)} [{self.shown(value.low)}, {self.shown(value.high)}]"


@dataclass(frozen=True, eq=False)
class Row:
    """One point of the axes but the seed, or the same over all orders.

    Args:
        point: axis by axis; without the curriculum where orders are put together.
        stream, strategy, curriculum: the same in three parts; the curriculum is empty where there
            is one only, or where orders are put together.
        method: the strategy with the other settings that vary.
        values: by measure, over seeds (each the mean of its orders).
        difference: of its accuracy from that of the best row of its stream, over the seeds they
            share; None for the best one, and for rows without such a seed.
        p: of that difference, after Holm's correction.
        best: whether it has the highest accuracy of its stream, or cannot be told from it by p.
        indices: of its runs in the frame.
        over: the limits of their budgets that any of them is beyond.
        curve: the mean accuracy on what was learned so far.
        steps: after how many experiences, or slices, each point of it was measured.
    """

    point: Mapping[str, str]
    stream: str
    strategy: str
    method: str
    curriculum: str
    values: Mapping[str, Interval]
    seeds: Mapping[Any, float]
    indices: tuple[int, ...]
    curve: Sequence[Interval]
    steps: Sequence[int]
    difference: Difference | None = None
    p: float = math.nan
    best: bool = False
    over: tuple[str, ...] = ()

    def cell(self, axis: str) -> str:
        """Return what a table shows of an axis."""
        value = self.point.get(axis, self.strategy if axis == "strategy" else "-")
        return "-" if value == "nan" else value


def shown_axes(rows: Sequence[Row]) -> list[str]:
    """Return the axes that tell rows apart, and always the strategy."""
    names = dict.fromkeys(axis for row in rows for axis in row.point)
    varying = [n for n in names if len({row.cell(n) for row in rows}) > 1]
    return varying if "strategy" in varying else ["strategy", *varying]


def page_axes(rows: Sequence[Row]) -> list[str]:
    """Return the axes as the page and its script have them: the strategy first."""
    return sorted(shown_axes(rows), key=lambda axis: axis != "strategy")


def measures_of(runs: Runs) -> list[Measure]:
    """Return the measures that these runs have values of."""
    builtin = {name for name, metric in metrics().items() if metric.is_builtin}
    names = dict.fromkeys(name for result in runs.results for name in result.metrics)
    sessions = FEW_SHOT if any(result.few_shot for result in runs.results) else {}
    columns = COLUMNS | sessions | {n: True for n in names if "/" not in n and n not in builtin}
    if all(result.scenario != "class" for result in runs.results):  # the same figures
        del columns["task/zero_shot_retention"]
    present = [k for k in columns if k in runs.frame.columns and runs.frame[k].notna().any()]
    return [Measure(k, columns[k]) for k in sorted(present, key=lambda k: k.startswith("cost."))]


def rows_of(runs: Runs, *, together: bool = False, measures: Sequence[Measure] = ()) -> list[Row]:
    """Return the rows of each stream, best first.

    Args:
        together: put the orders of a row together.
        measures: what they have values of, accuracy among them; those of reports if empty.
    """
    if runs.frame.empty:
        return []
    frame = runs.frame.assign(
        _index=range(len(runs.frame)), _stream=[result.stream for result in runs.results]
    )
    measures = measures or measures_of(runs)
    curves = [_curve(result.matrix) for result in runs.results]
    apart = ("curriculum",) if together else ()
    axes = axes_of(frame, *apart)
    names = [axis.removeprefix("axis.") for axis in axes]
    varying = {name for name, axis in zip(names, axes, strict=True) if frame[axis].nunique() > 1}
    rows = [
        _row(dict(zip(names, point, strict=True)), varying, group, measures, curves)
        for point, group in by_point(frame, *apart)
    ]
    streams = dict.fromkeys(row.stream for row in rows)
    return [row for stream in streams for row in _marked([r for r in rows if r.stream == stream])]


def _row(
    point: dict[str, str],
    varying: Collection[str],
    group: pd.DataFrame,
    measures: Sequence[Measure],
    curves: Sequence[Curve],
) -> Row:
    by_seed = group.groupby("seed")[[m.key for m in measures]].mean()
    indices = tuple(map(int, group["_index"]))
    given = [value for axis, value in point.items() if about_stream(axis)]
    strategy = point.get("strategy", str(group["strategy.name"].iloc[0]))
    settings = [
        value
        for axis, value in point.items()
        if axis in varying and axis not in OWN_PARTS and not about_stream(axis) and value != "nan"
    ]
    return Row(
        point,
        stream=" ".join(given) or str(group["_stream"].iloc[0]),
        strategy=strategy,
        method=" ".join([strategy, *settings]),
        curriculum=point["curriculum"] if "curriculum" in varying else "",
        values={m.key: bounded_mean(by_seed[m.key].to_numpy(), m.metric.bounds) for m in measures},
        seeds=by_seed["average_accuracy"].to_dict(),
        indices=indices,
        curve=_band([curves[i] for i in indices], list(group["seed"])),
        steps=[k for k, _ in curves[indices[0]]],
        over=tuple(name for name in LIMITS if _is_over(group, name)),
    )


def _is_over(group: pd.DataFrame, name: str) -> bool:
    """Return whether any run used more of something than its budget."""
    columns = {f"budget.{name}", f"cost.{name}"}
    found = group[f"cost.{name}"] > group[f"budget.{name}"] if columns <= {*group} else None
    return found is not None and bool(found.any())


def about_stream(axis: str) -> bool:
    """Return whether an axis decides what is learned: accuracies do not compare across it."""
    return axis in ("stream", "scenario") or axis.startswith("stream.")


def _curve(matrix: AccuracyMatrix) -> Curve:
    """Return the accuracy so far by the number of steps; of a long stream, every so many rows."""
    points = [*zip(matrix.rows[1:], accuracy_so_far(matrix), strict=True)]
    return [points[i] for i in evenly(len(points), LONGEST)]


def _band(curves: Sequence[Curve], seeds: Sequence[Any]) -> list[Interval]:
    """Return the curves' mean with intervals over seeds; nothing where they differ in their
    steps."""
    if len({tuple(k for k, _ in curve) for curve in curves}) > 1:
        return []
    by_seed: dict[Any, list[list[float]]] = {}
    for seed, curve in zip(seeds, curves, strict=True):
        by_seed.setdefault(seed, []).append([accuracy for _, accuracy in curve])
    means = np.array([np.mean(same, axis=0) for same in by_seed.values()])
    return [bounded_mean(values, SHARE) for values in means.T]


def _marked(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a stream's rows with their differences from its best one; mark the best within noise.

    Rows are compared over the seeds that they share with the best one; those without any are not.
    """
    best, found = against_best({str(i): row.seeds for i, row in enumerate(rows)}, SHARE)
    for i, row in enumerate(rows):
        difference, p = found.get(str(i), (None, math.nan))
        yield replace(row, difference=difference, p=p, best=str(i) == best or p > SIGNIFICANT)
