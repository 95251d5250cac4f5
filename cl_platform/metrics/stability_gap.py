"""Metrics of accuracy within experiences: what is lost for a while, between two rows of a matrix.

Source of all: De Lange et al. 2023, "Continual evaluation for lifelong learning: Identifying the
stability gap". Accuracy is measured every so many steps (``evaluate_every``), and windows are as
many measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cl_platform.metrics.registry import metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAPER = "De Lange et al. 2023"


@dataclass(frozen=True, eq=False)
class Curves:
    """Accuracy on each experience during a run.

    Args:
        values: (P, T), at each of P measurements; nan before an experience is learned.
        old: (P, T) bool, whether it was learned before the step that the measurement is within,
            and is not what this step learns.
    """

    values: NDArray[np.float64]
    old: NDArray[np.bool_]

    def lowest(self) -> NDArray[np.float64]:
        """Return the lowest accuracy on each experience while it is old, (T,); nan if never."""
        lowest = np.where(self.old, self.values, np.inf).min(0)
        return np.where(np.isinf(lowest), np.nan, lowest)

    def now(self) -> NDArray[np.bool_]:
        """Return which experiences are known at the end and not old, (T,)."""
        now: NDArray[np.bool_] = ~self.old[-1] & ~np.isnan(self.values[-1])
        return now


@metric(
    title="lowest accuracy", direction="more", source=f"{PAPER}, min-ACC", computed_from="curves"
)
def min_accuracy(curves: Curves) -> float:
    """Return the mean over old experiences of the lowest accuracy since each was learned."""
    return _mean(curves.lowest()[curves.old[-1]])


@metric(title="worst case", direction="more", source=f"{PAPER}, WC-ACC", computed_from="curves")
def worst_case_accuracy(curves: Curves) -> float:
    """Return the mean over the lowest accuracy on each old experience and that on the last.

    With k experiences, that is 1/k of the accuracy on the last at the end and 1 - 1/k of
    `min_accuracy`.
    """
    now = curves.now()
    return _mean(np.append(curves.values[-1][now], curves.lowest()[curves.old[-1]]))


@metric(
    title="forgetting in a window of 10",
    direction="less",
    source=f"{PAPER}, WF, window 10",
    computed_from="curves",
)
def windowed_forgetting_10(curves: Curves) -> float:
    """Return the mean over experiences of the largest drop of accuracy within 10 measurements."""
    return _mean([largest_drop(values, 10) for values in _known(curves)])


@metric(
    title="forgetting in a window of 100",
    direction="less",
    source=f"{PAPER}, WF, window 100",
    computed_from="curves",
)
def windowed_forgetting_100(curves: Curves) -> float:
    """Return the same within 100 measurements."""
    return _mean([largest_drop(values, 100) for values in _known(curves)])


@metric(
    title="gain in a window of 10",
    direction="more",
    source=f"{PAPER}, WP, window 10",
    computed_from="curves",
)
def windowed_plasticity_10(curves: Curves) -> float:
    """Return the mean over experiences of the largest rise of accuracy within 10 measurements."""
    return _mean([largest_drop(-values, 10) for values in _known(curves)])


@metric(
    title="gain in a window of 100",
    direction="more",
    source=f"{PAPER}, WP, window 100",
    computed_from="curves",
)
def windowed_plasticity_100(curves: Curves) -> float:
    """Return the same within 100 measurements."""
    return _mean([largest_drop(-values, 100) for values in _known(curves)])


def largest_drop(values: NDArray[np.float64], window: int) -> float:
    """Return the largest values[m] - values[n], m < n within `window` in a row; at least 0."""
    lags = range(1, min(window, len(values)))
    return max([0.0, *(float((values[:-lag] - values[lag:]).max()) for lag in lags)])


def _known(curves: Curves) -> list[NDArray[np.float64]]:
    """Return the curve of each experience from when it is learned."""
    columns = [values[~np.isnan(values)] for values in curves.values.T]
    return [values for values in columns if len(values)]


def _mean(values: object) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else float("nan")
