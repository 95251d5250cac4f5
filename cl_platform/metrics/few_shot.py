"""Metrics of few-shot class-incremental learning: a large base experience, then small sessions.

Accuracies of several experiences are pooled over their test samples: 60 classes at 0.8 and 5 at
0.4 are 0.7692, not 0.6. A session is a row of the matrix after training, the base the experience
that is learned first; what is new are all others that have been learned. Without the numbers of
test samples (``AccuracyMatrix.sizes``) what is pooled is nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.metrics.registry import metric

TAO = "Tao et al. 2020 (TOPIC)"
ZHANG = "Zhang et al. 2021 (CEC)"


def session_accuracies(r: AccuracyMatrix) -> list[float]:
    """Return the accuracy of each session, pooled over the experiences learned until then."""
    return [_pooled(r, i, [*dict.fromkeys(r.visits[:k])]) for i, k in enumerate(r.rows[1:], 1)]


@metric("few_shot.average_accuracy", title="sessions", direction="more", source=TAO)
def few_shot_average_accuracy(r: AccuracyMatrix) -> float:
    """Return the mean over sessions of the pooled accuracy on all that was learned until then."""
    return fmean(session_accuracies(r))


@metric("few_shot.last_accuracy", title="last session", direction="more", source=TAO)
def few_shot_last_accuracy(r: AccuracyMatrix) -> float:
    """Return the pooled accuracy of the last session, on all that was learned."""
    return session_accuracies(r)[-1]


@metric("few_shot.performance_drop", title="performance drop", direction="less", source=ZHANG)
def few_shot_performance_drop(r: AccuracyMatrix) -> float:
    """Return the pooled accuracy after the base session less that after the last one."""
    sessions = session_accuracies(r)
    return sessions[0] - sessions[-1] if r.rows[1] == 1 else math.nan


@metric("few_shot.base_accuracy", title="base", direction="more", source=ZHANG)
def few_shot_base_accuracy(r: AccuracyMatrix) -> float:
    """Return the accuracy on the base experience after the last session."""
    return r[-1, r.visits[0]]


@metric("few_shot.new_accuracy", title="new", direction="more", source=ZHANG)
def few_shot_new_accuracy(r: AccuracyMatrix) -> float:
    """Return the pooled accuracy after the last session on all that was learned after the base."""
    return _pooled(r, -1, [j for j in dict.fromkeys(r.visits) if j != r.visits[0]])


@metric(
    "few_shot.harmonic_mean",
    title="harmonic mean",
    direction="more",
    source="Peng et al. 2022 (ALICE)",
)
def few_shot_harmonic_mean(r: AccuracyMatrix) -> float:
    """Return the harmonic mean 2 b n / (b + n) of base and new accuracy after the last session."""
    base, new = few_shot_base_accuracy(r), few_shot_new_accuracy(r)
    return 2 * base * new / (base + new) if base + new else 0.0


def _pooled(r: AccuracyMatrix, row: int, columns: Sequence[int]) -> float:
    """Return the accuracy in a row over all test samples of some columns; nan if unknown."""
    if not (r.sizes and columns):
        return math.nan
    sizes = np.array([r.sizes[j] for j in columns], dtype=np.float64)
    return float(r.values[row, list(columns)] @ sizes / sizes.sum())
