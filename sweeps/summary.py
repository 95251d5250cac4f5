"""The summary of a sweep on W&B."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cl_platform.report.pictures import order_figure
from cl_platform.report.points import METRICS, axes_of, by_point, order_effects

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.api import Sweep


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
