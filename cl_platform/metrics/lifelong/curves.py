"""Performance curves of lifelong runs: made comparable, and what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cl_platform.errors import BadInput
from cl_platform.metrics.lifelong.logs import Block, LifelongLog, by_task

FLOOR, SPAN = 1.0, 100.0  # prepared values reach from FLOOR to FLOOR + SPAN
LONGEST_WINDOW = 100
ROUNDING = 1e-9  # points; smaller differences of prepared values are none


@dataclass(frozen=True)
class Prepared:
    """A log and its experts on the common scale.

    Args:
        blocks: those of the log.
        experts: the training curve of each run of a task's expert, by task.
        ranges: the raw values that were mapped to 1 and 101, by task; nan where there are none.
    """

    blocks: tuple[Block, ...]
    experts: dict[str, tuple[np.ndarray, ...]]
    ranges: dict[str, tuple[float, float]]


def prepare(log: LifelongLog, experts: Sequence[LifelongLog] = ()) -> Prepared:
    """Smooth every training block, then map each task's values linearly to 1..101.

    The scale begins at 1, so that ratios of performances exist. What is mapped to 1 and 101 is the
    range that the log states (for all tasks alike), or else the lowest and the highest smoothed
    value of the task in the log and in its experts' training. In the latter case two runs have two
    scales, and a task that begins at its lowest value has a very large ratio of forward transfer.
    Values outside a stated range go beyond 1 and 101; a task that never changes is 1 throughout.

    Source: the package l2metrics (`docs/data_preprocessing.md`), whose clamping of outliers, off by
    default, is left out.

    Raises:
        BadInput: an expert trains no task or several, or has no training curve.
    """
    curves = _expert_curves(experts)
    smoothed = [
        replace(block, curve=smooth(block.curve)) if block.kind == "train" else block
        for block in log.blocks
    ]
    ranges = {
        task: log.value_range or extremes([b.curve for b in own] + curves.get(task, []))
        for task, own in by_task(smoothed).items()
    }
    return Prepared(
        tuple(replace(block, curve=_scaled(block.curve, ranges[block.task])) for block in smoothed),
        {t: tuple(_scaled(curve, ranges[t]) for curve in curves.get(t, [])) for t in log.tasks},
        ranges,
    )


def smooth(curve: np.ndarray) -> np.ndarray:
    """Return the moving average that l2metrics takes of a curve: (n,) -> (n,).

    The window w is a fifth of the curve, 100 at most; below 3 the curve stays as it is. The value
    at t is the mean from t - w/2 to t + w/2 - 1 (even w), or from t - (w+1)/2 to t + (w-3)/2 (odd
    w). Beyond its ends the curve is mirrored.
    """
    window = min(len(curve) // 5, LONGEST_WINDOW)
    if window < 3:
        return curve
    mirrored = np.pad(curve, ((window + 1) // 2, window // 2 - 1), mode="reflect")
    return np.convolve(mirrored, np.full(window, 1 / window), mode="valid")


def extremes(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the lowest and the highest value of several curves; nan without values."""
    values = np.concatenate(curves)
    return (float(values.min()), float(values.max())) if values.size else (np.nan, np.nan)


def recovery_time(previous: np.ndarray, curve: np.ndarray) -> int:
    """Return the experiences until a curve is back at the terminal value of the one before it.

    That is the mean of the last tenth. If it never is back: one more than its length.
    """
    terminal = previous[len(previous) * 9 // 10 :].mean()
    reached = np.flatnonzero(curve >= terminal - ROUNDING)
    return int(reached[0]) if len(reached) else len(curve) + 1


def saturation_of(curve: np.ndarray) -> tuple[float, float]:
    """Return the highest value of a curve smoothed once more, and the experiences before it."""
    if not curve.size:
        return np.nan, np.nan
    smoothed = smooth(curve)
    highest = smoothed.max()
    return float(highest), float(np.flatnonzero(smoothed >= highest - ROUNDING)[0])


def falls(curve: np.ndarray) -> bool:
    """Return whether the least-squares line through a curve goes down."""
    time = np.arange(len(curve)) - (len(curve) - 1) / 2
    return bool(time @ curve < -ROUNDING * (time @ time))


def _expert_curves(experts: Sequence[LifelongLog]) -> dict[str, list[np.ndarray]]:
    """Return the smoothed training blocks of each expert in a row, by task."""
    curves: dict[str, list[np.ndarray]] = {}
    for expert in experts:
        trained = [block for block in expert.blocks if block.kind == "train"]
        tasks = sorted({block.task for block in trained})
        if len(tasks) != 1:
            raise BadInput(
                f"an expert that trains {len(tasks)} tasks ({', '.join(tasks) or 'none'}): give "
                "runs that train a single one each"
            )
        curve = np.concatenate([smooth(block.curve) for block in trained])
        if not curve.size:
            raise BadInput(f"an expert of {tasks[0]!r} without a training curve: leave it out")
        curves.setdefault(tasks[0], []).append(curve)
    return curves


def _scaled(curve: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    low, high = value_range
    if low == high:
        return np.full(len(curve), FLOOR)
    return (curve - low) / (high - low) * SPAN + FLOOR
