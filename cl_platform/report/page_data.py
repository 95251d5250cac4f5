"""The data of a page's script, in little JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cl_platform.core.matrix import evenly
from cl_platform.metrics.statistics import Interval
from cl_platform.metrics.zero_shot import adapted_and_held_out
from cl_platform.report.leaderboard import Measure, Row, page_axes
from cl_platform.report.measured.confusions import confusions
from cl_platform.report.runs import Runs
from cl_platform.results.load import flat
from cl_platform.results.result import Result

MOST = 100  # rows and columns of a matrix, of many evenly apart: a page must stay light


def page_data(
    runs: Runs, rows: Sequence[Row], together: Sequence[Row], measures: Sequence[Measure]
) -> dict[str, Any]:
    """Return rows, runs and their configurations for the page's script.

    Args:
        rows: the leaderboard, one row per point.
        together: its rows with the orders of a point put together; empty if there is one order.
    """
    every = [*rows, *together]
    names: dict[tuple[str, ...], int] = {}
    row_of = {index: row for row in rows for index in row.indices}
    return {
        "name": runs.name,
        "shown": page_axes(every),
        "measures": [
            {"key": m.key, "name": m.name, "unit": m.unit, "sign": m.metric.sign} for m in measures
        ],
        "rows": [
            {
                **_row(i, row, measures, i >= len(rows)),
                "classes": _classes(row, runs.results),
                "trajectory": _trajectory([runs.results[i] for i in row.indices]),
            }
            for i, row in enumerate(every)
        ],
        "runs": [
            {**_run(each, row_of[i], names), "confusions": found}
            for i, (each, found) in enumerate(
                zip(runs.results, confusions(runs.results), strict=True)
            )
        ],
        "names": [list(each) for each in names],
        "config": _columns([result.config for result in runs.results]),
        "most": max((row.steps[-1] for row in every if row.curve), default=0),
    }


def _row(number: int, row: Row, measures: Sequence[Measure], together: bool) -> dict[str, Any]:
    return {
        "id": number,
        "stream": row.stream,
        "strategy": row.strategy,
        "method": row.method,
        "curriculum": row.curriculum,
        "together": together,
        "values": {
            m.key: _scaled(row.values[m.key], m.scale)
            for m in measures
            if not math.isnan(row.values[m.key].value)
        },
        "curve": [_scaled(point, 100) for point in row.curve],
        "steps": row.steps,
        "runs": row.indices,
    }


def _classes(row: Row, results: Sequence[Result]) -> list[float | None] | None:
    """Return the mean accuracy in % by class at the end; None if the runs differ in classes."""
    found = [results[i].class_accuracy for i in row.indices]
    last = [values[-1] for values in found if values is not None]
    if len(last) < len(found) or len({len(values) for values in last}) > 1:
        return None
    return _percent(np.mean(last, axis=0))


def _trajectory(runs: Sequence[Result]) -> list[list[float]]:
    """Return what each row of the matrix is after, with the mean accuracy in % on what is learned
    sooner or later and on what is held out, over the runs; empty if nothing is, or rows differ.

    In class-incremental streams under the mask ``task``, since unseen classes score 0 under
    ``seen``.
    """
    matrices = [r.matrices["task"] if r.scenario == "class" else r.matrix for r in runs]
    if len({m.rows for m in matrices}) > 1 or not all(m.held_out for m in matrices):
        return []
    means = np.mean([adapted_and_held_out(m) for m in matrices], axis=0)
    after = matrices[0].rows
    return [[after[i], *np.round(100 * means[i], 2).tolist()] for i in evenly(len(after), MOST)]


def _scaled(interval: Interval, scale: float) -> list[float | None]:
    values = (interval.value, interval.low, interval.high)
    return [None if math.isnan(v) else float(f"{scale * v:.5g}") for v in values]


def _run(result: Result, row: Row, names: dict[tuple[str, ...], int]) -> dict[str, Any]:
    matrix, errors, probes = result.matrix, result.calibration, result.probes
    rows, columns = evenly(len(matrix.rows), MOST), evenly(len(matrix), MOST)
    shown = np.ix_(rows, columns)
    after = [matrix.rows[i] for i in rows]
    return {
        "id": result.run_id,
        "stream": row.stream,
        "method": row.method,
        "curriculum": row.curriculum,
        "seed": result.config["seed"],
        "accuracy": round(100 * result.metrics["average_accuracy"], 2),
        "matrix": [_percent(line) for line in matrix.values[shown]],
        "calibration": [] if errors is None else [_percent(line) for line in errors.values[shown]],
        "names": names.setdefault(
            tuple(f"{j + 1}: {matrix.names[j]}" for j in columns), len(names)
        ),
        **({} if probes is None else {"probes": [_percent(line) for line in probes.values[shown]]}),
        # What each row is after, unless after 1, 2, ...; and how many columns stand apart.
        **({"after": after} if after != [*range(len(after))] else {}),
        **({"held_out": n} if (n := sum(j in matrix.held_out for j in columns)) else {}),
        **({"unseen": True} if n and result.scenario == "class" else {}),
        "taught": bool(result.visits),
        "command": result.command,
    }


def _percent(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(v) else v for v in np.round(100 * values, 1).tolist()]


def _columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return settings by dotted key: the different values, and which one each run has.

    A value is in a list of its own, so that null stands for a run without the setting.
    """
    settings = [flat(config) for config in configs]
    columns = {}
    for key in dict.fromkeys(key for each in settings for key in each):
        found = [json.dumps([each[key]]) if key in each else "null" for each in settings]
        values = list(dict.fromkeys(found))
        index = {value: i for i, value in enumerate(values)}
        columns[key] = {
            "values": [json.loads(value) for value in values],
            "of": [index[value] for value in found] if len(values) > 1 else None,
        }
    return columns
