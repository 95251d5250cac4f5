"""The summary of a sweep on W&B."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cl_platform.errors import one_line
from cl_platform.report.pictures import order_figure
from cl_platform.report.points import METRICS, axes_of, by_point, order_effects

if TYPE_CHECKING:
    import pandas as pd


def log_summary(
    frame: pd.DataFrame, mode: Literal["offline", "online"], out: Path, name: str
) -> None:
    """Log the table of results and the effect of the order on W&B, as one more run of the group.

    Any error is printed in one line: the sweep is complete without the summary.

    Args:
        frame: one row per run, with its axes as ``axis.NAME``.
        mode: ``offline`` or ``online``.
        out: folder of the sweep.
        name: of the sweep and its group.
    """
    from cl_platform.tracking.wandb.sink import log_sweep

    metrics = [m for m in METRICS if m in frame.columns]
    columns = [*(a.removeprefix("axis.") for a in axes_of(frame)), "runs"]
    columns += [f"{metric} {part}" for metric in metrics for part in ("mean", "sd")]
    rows = [
        [*point, len(group), *(part for metric in metrics for part in _mean_and_sd(group[metric]))]
        for point, group in by_point(frame)
    ]
    effects = order_effects(frame)
    figures = {"order_sensitivity": order_figure(effects)} if effects else {}
    try:
        log_sweep(mode, out, name, columns, rows, figures)
    except Exception as error:
        print(f"W&B has no summary: {one_line(error)}", file=sys.stderr)


def _mean_and_sd(values: pd.Series) -> tuple[float, float | None]:
    return float(values.mean()), float(values.std()) if len(values) > 1 else None
