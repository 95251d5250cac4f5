"""Metrics of what is scored without having been learned: on experiences to come, or held out.

Sources: Zheng et al. 2023 (ZSCL) for MTIL's transfer, average and last; Roth et al. 2024
(FoMo-in-Flux) for the accumulation of knowledge against what is retained zero-shot.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.metrics.registry import metric

MTIL, FOMO = "Zheng et al. 2023 (ZSCL), MTIL", "Roth et al. 2024 (FoMo-in-Flux)"
held_out_metric = partial(
    metric, direction="more", source=FOMO, computed_from="held_out", columns="all"
)


@metric("mtil.transfer", title="MTIL transfer", direction="more", source=MTIL)
def mtil_transfer(r: AccuracyMatrix) -> float:
    """Return the mean over j > 1 of mean_{1 <= i < j} R[i, j]: accuracy before it is learned.

    The row before any training is left out.
    """
    columns, rows = r.learned("first")
    before = [r.values[1:row, j] for j, row in zip(columns, rows, strict=True) if row > 1]
    return float(np.mean([values.mean() for values in before])) if before else math.nan


@metric("mtil.average", title="MTIL average", direction="more", source=MTIL)
def mtil_average(r: AccuracyMatrix) -> float:
    """Return the mean of all R[i, j] with i >= 1, learned or not."""
    return float(r.values[1:].mean()) if len(r.rows) > 1 else math.nan


@metric("mtil.last", title="MTIL last", direction="more", source=MTIL)
def mtil_last(r: AccuracyMatrix) -> float:
    """Return the average accuracy, mean_j R[T, j], under the name it has in MTIL."""
    return float(r.values[-1].mean())


@held_out_metric(title="knowledge accumulation")
def knowledge_accumulation(r: AccuracyMatrix) -> float:
    """Return KA, the mean over all that is learned of R[T, j].

    Each column counts once, so that data sets weigh by how many there are of their kind.
    """
    return float(adapted_and_held_out(r)[-1, 0])


@held_out_metric(title="zero-shot retention")
def zero_shot_retention(r: AccuracyMatrix) -> float:
    """Return ZS, the mean over all that is held out of R[T, j]."""
    return float(adapted_and_held_out(r)[-1, 1])


@held_out_metric(title="geometric mean of both")
def accumulation_and_retention(r: AccuracyMatrix) -> float:
    """Return GM, the square root of KA times ZS."""
    return float(np.sqrt(np.prod(adapted_and_held_out(r)[-1])))


def adapted_and_held_out(r: AccuracyMatrix) -> np.ndarray:
    """Return KA and ZS in each row, (S+1, 2): the mean accuracy on all columns that are learned
    sooner or later, and on those held out; nan where nothing is held out."""
    if not r.held_out:
        return np.full((len(r.rows), 2), math.nan)
    held = np.isin(np.arange(len(r)), r.held_out)
    return np.stack([r.values[:, ~held].mean(1), r.values[:, held].mean(1)], axis=1)
