"""Metrics normalised by chance, so that tasks of different numbers of classes can be averaged.

Chance c_j is the accuracy of guessing among the classes that may be predicted in column j; see
:func:`cl_platform.core.matrix.chances`. Where what is normalised by is not above chance, a metric
is nan, and those that a run asks for say so in one line.

Source: Srinivasan et al. 2022 (CLiMB), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.metrics.matrix_metrics import earlier
from cl_platform.metrics.registry import metric

CLIMB = "Srinivasan et al. 2022 (CLiMB), section 3"


@metric(title="normalised forgetting", direction="less", source=CLIMB, computed_from="chance")
def normalised_forgetting(r: AccuracyMatrix) -> float:
    """Return the mean over j < T of (R[j, j] - R[T, j]) / (R[j, j] - c_j): 1 is back at chance."""
    columns, rows = earlier(r)
    learned, now = r.values[rows, columns], r.values[-1, columns]
    if r.chances and (learned <= np.array(r.chances)[columns]).any():
        return math.nan  # without a line: it is computed for every run, asked for or not
    return _ratio(learned - now, learned, r, columns, "was learned")


@metric(title="normalised transfer", direction="more", source=CLIMB, computed_from="references")
def normalised_transfer(r: AccuracyMatrix, experts: Mapping[str, float]) -> float:
    """Return the mean over j > 1 of (R[j, j] - E[j]) / (E[j] - c_j): what earlier experiences give.

    E[j] is the accuracy on experience j of a model that was trained on it alone, from scratch.

    Args:
        experts: E by experience identity; nan if any but the first is missing.
    """
    columns, rows = r.learned()
    later = columns != r.visits[0]
    columns, rows = columns[later], rows[later]
    alone = np.array([experts.get(r.experience_ids[j], math.nan) for j in columns])
    return _ratio(r.values[rows, columns] - alone, alone, r, columns, "is learned alone")


@metric(
    title="probe accuracy",
    direction="more",
    source="Srinivasan et al. 2022 (CLiMB), low-shot; by a linear probe",
    computed_from="probes",
    columns="all",
)
def probe_accuracy(probes: AccuracyMatrix) -> float:
    """Return the mean accuracy of few-shot linear probes of the final state's features.

    Args:
        probes: entry [i, j] is that of a probe for column j after i experiences, nan for columns
            that are not probed.
    """
    probed = _probed(probes)
    return float(probes.values[-1, probed].mean()) if len(probed) else math.nan


@metric(
    title="low-shot transfer",
    direction="more",
    source="Srinivasan et al. 2022 (CLiMB), low-shot; by a linear probe",
    computed_from="probes",
    columns="all",
)
def low_shot_transfer(probes: AccuracyMatrix) -> float:
    """Return the mean over probed j of (P[T, j] - P[0, j]) / (P[0, j] - c_j): what the features of
    the final state give to few-shot learning over those of the untrained or pretrained model.

    Args:
        probes: P; see :func:`probe_accuracy`.
    """
    probed = _probed(probes)
    first, last = probes.values[0, probed], probes.values[-1, probed]
    return _ratio(last - first, first, probes, probed, "is probed untrained")


def _probed(probes: AccuracyMatrix) -> np.ndarray:
    """Return the columns that are probed."""
    return np.flatnonzero(~np.isnan(probes.values).any(0))


def _ratio(
    gains: np.ndarray, level: np.ndarray, r: AccuracyMatrix, columns: np.ndarray, how: str
) -> float:
    """Return the mean of gains over how far a level is above chance; nan without any, and where
    there is a single class.

    Raises:
        ValueError: it is not above chance.
    """
    chance = np.array(r.chances)[columns] if r.chances else np.ones(len(columns))
    if not len(columns) or (chance == 1).any():
        return math.nan
    above = level - chance
    if (above <= 0).any():
        raise ValueError(f"an experience {how} no better than by chance, which it is divided by")
    return float((gains / above).mean())
