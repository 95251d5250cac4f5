"""What teachers chose, and when: a section of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cl_platform.report.leaderboard import Row
from cl_platform.report.page import figure, paragraph
from cl_platform.results.plots import literal, new_figure
from cl_platform.results.result import Result

PARTS = 40  # of a run's samples, for which choices are shown
ACROSS, MOST = 3, 12  # panels side by side, and in all
LONGEST = 24  # letters of a name


def sections(rows: Sequence[Row], results: Sequence[Result]) -> Iterator[str]:
    """Yield the section, for the rows of the leaderboard that had a teacher."""
    taught: dict[str, list[Result]] = {}
    for row in rows:
        # In streams with experiences that come again there are visits without a teacher.
        runs = [r for i in row.indices if (r := results[i]).visits and ":" in _curriculum(r)]
        names = {run.matrix.names for run in runs}
        if len(names) == 1 and len(taught) < MOST:
            title = f"{row.method}, {row.curriculum or _curriculum(runs[0])}"
            taught[f"{title} on {row.stream}"] = runs
    if not taught:
        return
    shares = {title: path_shares(runs) for title, runs in taught.items()}
    data = pd.concat(
        {
            title: pd.DataFrame(
                found, index=taught[title][0].matrix.names, columns=range(1, PARTS + 1)
            )
            for title, found in shares.items()
        },
        names=["row", "experience"],
    ).reset_index()
    yield "<h2>What the teachers chose</h2>"
    yield figure(path_figure(taught), "teachers", "Experiences learned in time", data)
    yield paragraph(
        "Each panel goes from the first sample of a run to its last; a cell is dark where all "
        "seeds learned the experience then.",
        soft=True,
    )


def path_shares(runs: Sequence[Result]) -> np.ndarray:
    """Return which share of the runs' samples was of each experience, (T, PARTS), in equal parts of
    all samples."""
    found = np.zeros((len(runs[0].matrix), PARTS))
    for run in runs:
        ends = np.cumsum([samples for _, samples in run.visits])
        edges = np.linspace(0, ends[-1], PARTS + 1)
        for (experience, samples), end in zip(run.visits, ends, strict=True):
            inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], end - samples)
            found[experience] += inside.clip(min=0) / (edges[1] * len(runs))
    return found


def path_figure(taught: dict[str, list[Result]]) -> Any:
    """Draw a panel for each row: experiences by time, dark where they were learned."""
    across = min(ACROSS, len(taught))
    down = -(-len(taught) // across)
    n = max(len(runs[0].matrix) for runs in taught.values())
    figure = new_figure(3.7 * across, (1.1 + 0.22 * min(n, 30)) * down)
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for axes in grid[len(taught) :]:
        axes.set_visible(False)
    for axes, (title, runs) in zip(grid, taught.items(), strict=False):
        names = runs[0].matrix.names
        axes.imshow(path_shares(runs), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        every = max(1, len(names) // 15)
        shown = range(0, len(names), every)
        axes.set_yticks(shown, [literal(names[j][:LONGEST]) for j in shown], fontsize=8)
        axes.set_xticks([-0.5, PARTS - 0.5], ["start", "end"], fontsize=8)
        axes.set_title(literal(title), fontsize=9)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def _curriculum(result: Result) -> str:
    """Return its name; that of a teacher is ``teacher:NAME``, or a file or module and a class."""
    name: str = result.config["curriculum"]["name"]
    return name
