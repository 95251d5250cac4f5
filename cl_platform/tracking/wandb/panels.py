"""The panels of a W&B dashboard: each shows names of the schema and which direction is better."""

from __future__ import annotations

import warnings

from cl_platform.tracking.schema import Where, better, find

with warnings.catch_warnings():  # it is built on what pydantic calls outdated
    warnings.simplefilter("ignore")
    import wandb_workspaces.reports.v2 as wr

SETTINGS = ("stream.name", "strategy.name", "curriculum.name", "seed")
MOST_LINES = 50  # per panel; W&B would stop at 10


def curve(name: str) -> wr.LinePlot:
    """Return a name of the history against its axis."""
    row = find("history", name)
    assert row, name
    return wr.LinePlot(
        title=_title("history", name),
        x=row.by,
        y=[name],
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=MOST_LINES,
    )


def bars(name: str) -> wr.BarPlot:
    """Return a name of the summary."""
    return wr.BarPlot(
        title=_title("summary", name),
        metrics=[name],
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_bars_to_show=MOST_LINES,
    )


def plane(x: str, y: str) -> wr.ScatterPlot:
    """Return a plot of two names of the summary against each other, a point per run."""
    title = f"{_title('summary', y)} against {_words(x)}"
    return wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))


def settings_to(*names: str) -> wr.ParallelCoordinatesPlot:
    """Return a line per run from its settings to names of the summary."""
    settings = [wr.Config(key) for key in SETTINGS]
    columns = [*settings, *map(wr.SummaryMetric, names)]
    return wr.ParallelCoordinatesPlot(
        title="from settings to outcome",
        columns=[wr.ParallelCoordinatesPlotColumn(column) for column in columns],
    )


def pictures(name: str) -> wr.MediaBrowser:
    """Return the pictures of a name, of one run beside the other."""
    return wr.MediaBrowser(title=_words(name), media_keys=[name], num_columns=2)


def _title(where: Where, name: str) -> str:
    direction = better(where, name)
    return _words(name) + (f" ({direction} is better)" if direction else "")


def _words(name: str) -> str:
    kind, _, last = name.rpartition("/")
    return last.replace("_", " ") + (" so far" if kind == "so_far" else "")
