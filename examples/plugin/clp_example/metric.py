"""A metric of the last row of the accuracy matrix."""

from __future__ import annotations

from cl_platform import AccuracyMatrix
from cl_platform.metrics.registry import metric


@metric(title="spread over experiences", direction="less")
def accuracy_spread(r: AccuracyMatrix) -> float:
    """Return how far experiences lie apart at the end: max_j R[T, j] - min_j R[T, j]."""
    return float(r.values[-1].max() - r.values[-1].min())
