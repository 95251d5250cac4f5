"""The report of a sweep: one HTML page that needs nothing else, and its runs as a table."""

from __future__ import annotations

import html
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cl_platform.files import write_atomic
from sweeps.analysis import METRICS, axes_of, by_point, for_table, order_effects, spread
from sweeps.page import document, figure, paragraph, table
from sweeps.pictures import order_figure
from sweeps.show import duration
from sweeps.study_page import sections
from sweeps.tuning import Choice

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.api import Sweep


MOST_ROWS = 100  # of the table of results, where the orders can be left out


def write_report(sweep: Sweep) -> Path:
    """Write `report.html` and `runs.parquet` into the sweep's folder; returns the page's path."""
    frame = sweep.results()
    if not frame.empty:
        content = io.BytesIO()
        _plain(frame).to_parquet(content)
        write_atomic(sweep.path / "runs.parquet", content.getvalue())
    path = sweep.path / "report.html"
    write_atomic(path, _page(sweep, frame).encode())
    return path


def track(sweep: Sweep) -> None:
    """Log the table and the effect of the order on W&B, as one more run of the sweep's group.

    Whatever goes wrong there costs one line: the sweep is complete without.
    """
    from cl_platform.tracking.wandb_login import reachable_mode
    from cl_platform.tracking.wandb_sink import log_sweep

    frame = sweep.results()
    if frame.empty:
        return
    metrics = [m for m in METRICS if m in frame.columns]
    columns = [*(a.removeprefix("axis.") for a in axes_of(frame)), "runs"]
    columns += [f"{metric} {part}" for metric in metrics for part in ("mean", "sd")]
    rows = [
        [*point, len(group), *(f(group[m]) for m in metrics for f in (_mean, _deviation))]
        for point, group in by_point(frame)
    ]
    effects = order_effects(frame)
    figures = {"order_sensitivity": order_figure(effects)} if effects else {}
    mode: str = sweep.spec.wandb.mode
    try:
        mode = reachable_mode() if mode == "online" else mode
        log_sweep(mode, sweep.path, sweep.spec.name, columns, rows, figures)
    except Exception as error:
        print(f"W&B has no summary: {' '.join(str(error).split())}", file=sys.stderr)


def _mean(values: pd.Series) -> float:
    return float(values.mean())


def _deviation(values: pd.Series) -> float | None:
    return float(values.std()) if len(values) > 1 else None


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """With columns of one type each: what is a mapping or list in some run becomes text."""
    plain = frame.copy()
    for name in plain.columns:
        if plain[name].dtype == object:
            plain[name] = plain[name].map(lambda v: v if v is None else str(v))
    return plain


def _page(sweep: Sweep, frame: pd.DataFrame) -> str:
    parts = [
        f"<h1>{html.escape(sweep.spec.name)}</h1>",
        paragraph(_overview(sweep), soft=True),
        *map(_choice, sweep.chosen),
    ]
    if not frame.empty:
        parts += ["<h2>Results</h2>", _table(frame)]
        parts.append(
            paragraph("In %: mean \u00b1 standard deviation over the runs of a row.", soft=True)
        )
        parts += _orders(sweep, frame)
    errors = {e for phase in sweep.phases for e in phase.errors.values()}
    if errors:
        parts += ["<h2>Failed runs</h2>", *map(paragraph, sorted(errors))]
    spec = yaml.safe_dump(
        sweep.spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False
    )
    parts += ["<h2>Specification</h2>", f"<pre>{html.escape(spec)}</pre>"]
    return document(sweep.spec.name, parts)


def _choice(choice: Choice) -> str:
    chosen = ", ".join(f"{k} = {v}" for k, v in choice.point.items())
    return (
        f"<p>Chosen on validation data: <b>{html.escape(chosen)}</b> "
        f"({choice.objective:.4f}, mean of {choice.seeds} seeds).</p>"
    )


def _orders(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """A study of each stream's orders where there are enough of them, else what they moved."""
    if studied := sweep.studies():
        return [part for study in studied for part in sections(study)]
    effects = order_effects(frame)
    if not effects:
        return []
    return [
        "<h2>Does the order matter?</h2>",
        figure(order_figure(effects)),
        *(paragraph(f"{effect}.") for effect in effects),
    ]


def _overview(sweep: Sweep) -> str:
    tally = sweep.phases[-1].tally
    saved = tally.experiences - tally.distinct
    words = [f"{tally.done} of {tally.runs} runs done"]
    words += [f"{tally.failed} failed"] if tally.failed else []
    words.append(
        f"{tally.distinct} experiences instead of {tally.experiences}"
        if saved
        else f"{tally.distinct} experiences"
    )
    return "; ".join([*words, f"last session {duration(sweep.seconds)}"])


def _table(frame: pd.DataFrame) -> str:
    metrics = [m for m in METRICS if m in frame.columns]
    axes, groups = for_table(frame, MOST_ROWS)
    rows = [
        [*point, str(len(group)), *(spread(group[m]) for m in metrics)] for point, group in groups
    ]
    return table([*axes, "runs", *(METRICS[m] for m in metrics)], rows, words=len(axes))
