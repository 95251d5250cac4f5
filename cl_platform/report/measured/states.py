"""What was measured of states besides accuracies: a section of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cl_platform.metrics.registry import find_metric, metrics
from cl_platform.report.leaderboard import Row
from cl_platform.report.page import figure, paragraph
from cl_platform.results.plots import literal, new_figure
from cl_platform.results.result import Result

ACROSS, MOST_LINES = 3, 12  # panels side by side; lines in each


def sections(rows: Sequence[Row], results: Sequence[Result]) -> Iterator[str]:
    """Yield the section, for the rows of the leaderboard whose states were measured."""
    lines = curves(rows, results)
    if lines.empty:
        return
    yield "<h2>Can it still learn?</h2>"
    yield figure(curves_figure(lines), "states", "What was measured of each state", lines)
    text = "Means over the runs of a row; 0 experiences: before training."
    if lines["row"].nunique() > MOST_LINES:
        text += f" The best {MOST_LINES} rows are drawn; all are in the CSV."
    yield paragraph(text, soft=True)


def curves(rows: Sequence[Row], results: Sequence[Result]) -> pd.DataFrame:
    """Return what was measured: ``measure``, ``row``, ``experiences`` learned, ``value``.

    Of each row of the leaderboard the mean over its runs, where these are of equal length.
    """
    found = []
    for row in rows:
        runs = [results[i].plasticity for i in row.indices]
        name = " ".join(filter(None, (row.method, row.curriculum, "on", row.stream)))
        for measure in [m for m in metrics("states") if all(m in run for run in runs)]:
            values = [np.array(run[measure], np.float64) for run in runs]
            if len({len(v) for v in values}) == 1:
                mean = np.mean(values, axis=0)
                after = results[row.indices[0]].matrix.rows
                points = zip(after, mean, strict=True)
                found += [(measure, name, k, v) for k, v in points if not np.isnan(v)]
    return pd.DataFrame(found, columns=["measure", "row", "experiences", "value"])


def curves_figure(lines: pd.DataFrame) -> Any:
    """Draw a panel for each measure, with a line for each row."""
    names, drawn = list(dict.fromkeys(lines["measure"])), list(dict.fromkeys(lines["row"]))
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = new_figure(3.7 * across, 2.6 * down + 0.25 * min(len(drawn), MOST_LINES))
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid, names, strict=False):
        own = lines[lines["measure"] == name]
        for row in drawn[:MOST_LINES]:
            one = own[own["row"] == row]
            axes.plot(one["experiences"], one["value"], marker=".", label=literal(row))
        axes.set_title(literal(find_metric(name).title), fontsize=9)
        axes.set_xlabel("experiences learned", fontsize=8)
        axes.tick_params(labelsize=8)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=1)
    return figure
