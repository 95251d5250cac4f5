"""Metrics of an accuracy matrix, each by one name and with its source.

Notation: R[i, j] is the accuracy on experience j (1..T) after i experiences, R[0, j] before any.
A metric that is undefined for a matrix (forgetting of a single experience) is nan.

Where experiences come again, T steps are S slices: "after i" is after i slices, "j < T" is every
experience learned but that of the last slice, R[j, j] is after the last visit to j, and R[j-1, j]
before the first. Experiences that were never learned count in the mean over all of them alone.
Where rows are left out, "after" means the first row after that, and "before" the one before it.

Columns that are held out are scored and never learned. Metrics with ``columns="trained"``, the
default, are given the matrix without them; those with ``columns="all"`` see all.

A new metric is a function of the matrix with :func:`cl_platform.metrics.registry.metric` on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.core.predictions import NotKept
from cl_platform.errors import BadInput, one_line, say_once
from cl_platform.metrics.registry import Metric, metric, metrics


@metric(title="accuracy", direction="more", source="Lopez-Paz & Ranzato 2017, eq. 2")
def average_accuracy(r: AccuracyMatrix) -> float:
    """Return the mean over all experiences after the last one: mean_j R[T, j]."""
    return _mean(r.values[-1])


@metric(
    title="incremental accuracy",
    direction="more",
    source="Rebuffi et al. 2017 (iCaRL), section 4.1",
)
def average_incremental_accuracy(r: AccuracyMatrix) -> float:
    """Return the mean over i = 1..T of the mean accuracy on the experiences learned so far."""
    return _mean(accuracy_so_far(r))


def accuracy_so_far(r: AccuracyMatrix) -> list[float]:
    """Return the mean accuracy in each row after training on the experiences learned until then."""
    return [_mean(r.values[i, [*dict.fromkeys(r.visits[:k])]]) for i, k in enumerate(r.rows[1:], 1)]


@metric(title="forgetting", direction="less", source="Chaudhry et al. 2018 (RWalk), eq. 3")
def forgetting(r: AccuracyMatrix) -> float:
    """Return the mean over j < T of max_{1 <= i < T} R[i, j] - R[T, j]; may be negative."""
    before = earlier(r)[0]
    if not len(before):
        return float("nan")
    best = r.values[1:-1, before].max(axis=0)
    return _mean(best - r.values[-1, before])


@metric(title="forgetting since learned", direction="less", source="avalanche-lib")
def forgetting_since_learned(r: AccuracyMatrix) -> float:
    """Return the mean over j < T of R[j, j] - R[T, j]: backward transfer with its sign turned."""
    columns, rows = earlier(r)
    return _mean(r.values[rows, columns] - r.values[-1, columns])


@metric(
    title="forgetting from best",
    direction="less",
    source="code of L2P (Wang et al. 2022), Mammoth, PILOT",
)
def forgetting_from_best(r: AccuracyMatrix) -> float:
    """Return the mean over j < T of max_{1 <= i <= T} R[i, j] - R[T, j]; never negative."""
    before = earlier(r)[0]
    return _mean(r.values[1:, before].max(axis=0) - r.values[-1, before])


@metric(
    title="forgetting per step",
    direction="less",
    source="code of CODA-Prompt (Smith et al. 2023), OVOR (Huang et al. 2024)",
)
def forgetting_consecutive(r: AccuracyMatrix) -> float:
    """Return the mean over i = 2..T of the mean over j < i of R[i-1, j] - R[i, j].

    Where experiences come again, j runs over those learned before that step i does not learn.
    """
    columns, rows = r.learned("first")
    drops = []
    for i, learned in r.steps():
        earlier = columns[(rows < i) & ~np.isin(columns, learned)]
        if len(earlier):
            drops.append(_mean(r.values[i - 1, earlier] - r.values[i, earlier]))
    return _mean(drops)


@metric(title="backward transfer", direction="more", source="Lopez-Paz & Ranzato 2017, eq. 3")
def backward_transfer(r: AccuracyMatrix) -> float:
    """Return the mean over j < T of R[T, j] - R[j, j]."""
    columns, rows = earlier(r)
    return _mean(r.values[-1, columns] - r.values[rows, columns])


@metric(title="forward transfer", direction="more", source="Lopez-Paz & Ranzato 2017, eq. 4")
def forward_transfer(r: AccuracyMatrix) -> float:
    """Return the mean over j > 1 of R[j-1, j] - R[0, j]: what earlier experiences already give. It
    is 0 by construction with mask seen, under which classes not learned yet are never predicted.

    The baseline is the untrained model of the same run.
    """
    columns, rows = r.learned("first")
    gains = r.values[rows - 1, columns] - r.values[0, columns]
    return _mean(gains[columns != r.visits[0]])


@metric(title="as learned", direction="more", source="Riemer et al. 2019 (MER), section 5")
def learning_accuracy(r: AccuracyMatrix) -> float:
    """Return the mean accuracy on each experience right after it was learned: mean_j R[j, j]."""
    columns, rows = r.learned()
    return _mean(r.values[rows, columns])


@metric(title="first task retention", direction="more")
def first_task_retention(r: AccuracyMatrix) -> float:
    """Return the share of the first experience's accuracy that is left: R[T, 1] / R[1, 1]."""
    learned, left = _first(r)
    return left / learned if learned > 0 else float("nan")


@metric(
    title="intransigence",
    direction="less",
    source="Chaudhry et al. 2018 (RWalk), eq. 5",
    computed_from="references",
)
def intransigence(r: AccuracyMatrix, joint: AccuracyMatrix | Mapping[str, float]) -> float:
    """Return the mean over j of R*[T, j] - R[j, j], R* being joint training on all the data.

    One joint model stands for all experiences.

    Args:
        joint: its matrix, or its accuracies by experience identity; nan if any is missing.

    Raises:
        BadInput: `r` has no experience_ids.
    """
    by_identity = joint.last() if isinstance(joint, AccuracyMatrix) else joint
    columns, rows = r.learned()
    return _mean(_reference(r, by_identity)[columns] - r.values[rows, columns])


@metric(
    title="against experts",
    direction="more",
    source="Wang et al. 2024 (survey), forward transfer",
    computed_from="references",
)
def forward_transfer_from_experts(r: AccuracyMatrix, experts: Mapping[str, float]) -> float:
    """Return the mean over j > 1 of R[j, j] - E[j]: what earlier experiences give to a new one.

    E[j] is the accuracy on experience j of a model that was trained on it alone, from scratch.

    Args:
        experts: E by experience identity; nan if any but the first is missing.

    Raises:
        BadInput: `r` has no experience_ids.
    """
    columns, rows = r.learned()
    gains = r.values[rows, columns] - _reference(r, experts)[columns]
    return _mean(gains[columns != r.visits[0]])


@metric("curriculum.alpha", title="alpha", direction="more", source="Singh et al. 2023")
def curriculum_alpha(r: AccuracyMatrix) -> float:
    """Return the average accuracy, mean_j R[T, j], under the name it has in F."""
    return average_accuracy(r)


@metric("curriculum.beta", title="beta", direction="less", source="Singh et al. 2023")
def curriculum_beta(r: AccuracyMatrix) -> float:
    """Return what is lost of the first experience alone: R[1, 1] - R[T, 1]."""
    learned, left = _first(r)
    return learned - left


@metric("curriculum.f", title="F", direction="more", unit="", source="Singh et al. 2023")
def curriculum_f(r: AccuracyMatrix) -> float:
    """Return F = 2 alpha / (alpha beta + 1), from 0 to 2.

    It is no harmonic mean, and large where the last experience alone is known: see
    :func:`curriculum_f_above_floor`.
    """
    return _f(curriculum_alpha(r), curriculum_beta(r))


@metric("curriculum.f_above_floor", title="F above its floor", direction="more", unit="")
def curriculum_f_above_floor(r: AccuracyMatrix) -> float:
    """Return F less its value after complete forgetting, where only R[T, T] is 1.

    Alpha is 1/T there and beta 1.
    """
    return curriculum_f(r) - _f(1 / len(r), 1.0)


@metric(
    title="calibration error",
    direction="less",
    source="Guo et al. 2017, eq. 3, with 15 bins",
    computed_from="calibration",
)
def calibration_error(errors: AccuracyMatrix) -> float:
    """Return the mean over all experiences of the expected calibration error after the last one.

    Args:
        errors: entry [i, j] is the error on experience j after i experiences.
    """
    return _mean(errors.values[-1])


@metric(
    title="anytime accuracy",
    direction="more",
    source="Koh et al. 2022 (CLIB), A_AUC",
    computed_from="curve",
)
def anytime_accuracy(curve: Sequence[Sequence[float]]) -> float:
    """Return the area under the accuracy curve: the mean over all samples of the next accuracy.

    A_AUC is the sum of f(i) times the samples since the measurement before; it is divided by all
    samples here.

    Args:
        curve: [samples shown so far, accuracy], by growing numbers of samples.
    """
    samples, accuracy = np.asarray(curve, dtype=np.float64).T
    return float(np.average(accuracy, weights=np.diff(samples, prepend=0)))


def earlier(r: AccuracyMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns learned before the last step, and the row after each."""
    columns, rows = r.learned()
    before = rows < len(r.rows) - 1
    return columns[before], rows[before]


def _first(r: AccuracyMatrix) -> tuple[float, float]:
    """Return the accuracy on the first experience once learned and at the end; nan if nothing was
    measured in between."""
    column, known = r.visits[0], len(r.rows) > 2 or len(r.visits) == 1
    return (r[1, column], r[-1, column]) if known else (math.nan, math.nan)


def _f(alpha: float, beta: float) -> float:
    return 2 * alpha / (alpha * beta + 1)


def guarded(metric: Metric, *given: Any) -> float:
    """Return the value of a metric, or nan, with one line, where it raises or is infinite.

    Args:
        given: what it is computed from.
    """
    try:
        return value_of(metric, *given)
    except NotKept:  # of which the run has said so
        return math.nan
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's metric raises
        say_once(f"metric {metric.name!r} is nan: {one_line(error)}")
        return math.nan


def value_of(metric: Metric, *given: Any) -> float:
    """Return the value of a metric of what it is computed from; nan where it is undefined.

    Raises:
        ValueError: it is infinite. And whatever a user's metric raises.
    """
    assert metric.function is not None
    value = float(metric.function(*given))
    if math.isinf(value):
        raise ValueError("it is infinite")
    return value


def compute_metrics(
    r: AccuracyMatrix,
    chosen: Mapping[str, Metric] | None = None,
    value: Callable[[Metric, Any], float] = guarded,
) -> dict[str, float]:
    """Return metrics of a matrix by name: every registered one, or those chosen.

    One that raises, or gives no finite number, is nan and costs one line on stderr: the training
    that led to the matrix is not lost by it.
    """
    whole = replace(r, values=r.values.view())
    matrices = {"all": whole, "trained": whole.trained()}
    for matrix in matrices.values():  # a metric that sorts in place would change the others
        matrix.values.flags.writeable = False
    if chosen is None:
        chosen = of_matrix(r)
    found = {name: value(m, matrices[m.columns]) for name, m in chosen.items()}
    return {
        name: v
        for name, v in found.items()
        if chosen[name].computed_from != "chance" or not math.isnan(v)
    }


def of_matrix(r: AccuracyMatrix) -> dict[str, Metric]:
    """Return the registered metrics that a matrix has, by name."""
    return metrics("matrix") | metrics("chance") | (metrics("held_out") if r.held_out else {})


def _reference(r: AccuracyMatrix, accuracies: Mapping[str, float]) -> np.ndarray:
    """Return the accuracy that a reference has in each column, nan where it has none."""
    if len(r.experience_ids) != len(r):
        raise BadInput(
            f"an accuracy matrix of {len(r)} experiences has {len(r.experience_ids)} "
            "experience_ids: what is compared with a reference needs one for each; give them"
        )
    return np.array([accuracies.get(e, np.nan) for e in r.experience_ids])


def _mean(values: object) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else float("nan")
