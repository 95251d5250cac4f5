"""Metrics of an accuracy matrix, each by one name and with its source.

Notation: R[i, j] is the accuracy on experience j (1..T) after i experiences, R[0, j] before any.
A metric that is undefined for a matrix (forgetting of a single experience) is nan.

A new metric is a function of the matrix, put into ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import BadInput


def average_accuracy(r: AccuracyMatrix) -> float:
    """Mean over all experiences after the last one: mean_j R[T, j].

    Source: Lopez-Paz & Ranzato 2017, eq. 2.
    """
    return _mean(r.values[-1])


def average_incremental_accuracy(r: AccuracyMatrix) -> float:
    """Mean over i = 1..T of the mean accuracy on the experiences learned so far.

    Source: Rebuffi et al. 2017 (iCaRL), section 4.1.
    """
    return _mean(accuracy_so_far(r))


def accuracy_so_far(r: AccuracyMatrix) -> list[float]:
    """The mean accuracy on the first i experiences after them, for i = 1..T."""
    return [_mean(r.values[i, :i]) for i in range(1, len(r) + 1)]


def forgetting(r: AccuracyMatrix) -> float:
    """Mean over j < T of max_{1 <= i < T} R[i, j] - R[T, j]; may be negative.

    Source: Chaudhry et al. 2018 (RWalk), eq. 3. Other definitions have names of their own.
    """
    if len(r) < 2:
        return float("nan")
    best = r.values[1:-1, :-1].max(axis=0)
    return _mean(best - r.values[-1, :-1])


def forgetting_since_learned(r: AccuracyMatrix) -> float:
    """Mean over j < T of R[j, j] - R[T, j]: backward transfer with its sign turned.

    Source: what avalanche-lib calls forgetting, averaged over experiences.
    """
    return _mean(_diagonal(r)[:-1] - r.values[-1, :-1])


def forgetting_from_best(r: AccuracyMatrix) -> float:
    """Mean over j < T of max_{1 <= i <= T} R[i, j] - R[T, j]; never negative.

    Source: the code of L2P (Wang et al. 2022), Mammoth and PILOT, which count the last row as well.
    """
    return _mean(r.values[1:, :-1].max(axis=0) - r.values[-1, :-1])


def forgetting_consecutive(r: AccuracyMatrix) -> float:
    """Mean over i = 2..T of the mean over j < i of R[i-1, j] - R[i, j]: loss from step to step.

    Source: the code of CODA-Prompt (Smith et al. 2023) and OVOR (Huang et al. 2024).
    """
    drops = r.values[1:-1] - r.values[2:]
    return _mean([_mean(drop[: i + 1]) for i, drop in enumerate(drops)])


def backward_transfer(r: AccuracyMatrix) -> float:
    """Mean over j < T of R[T, j] - R[j, j].

    Source: Lopez-Paz & Ranzato 2017, eq. 3.
    """
    return _mean(r.values[-1, :-1] - _diagonal(r)[:-1])


def forward_transfer(r: AccuracyMatrix) -> float:
    """Mean over j > 1 of R[j-1, j] - R[0, j]: what earlier experiences already give.

    Source: Lopez-Paz & Ranzato 2017, eq. 4, with the untrained model of the same run as baseline.
    With the mask ``seen`` it is 0 by construction, since unseen classes are never predicted.
    """
    before = np.diagonal(r.values)[1:]
    return _mean(before - r.values[0, 1:])


def learning_accuracy(r: AccuracyMatrix) -> float:
    """Mean accuracy on each experience right after it was learned: mean_j R[j, j].

    Source: Riemer et al. 2019 (MER), section 5.
    """
    return _mean(_diagonal(r))


def first_task_retention(r: AccuracyMatrix) -> float:
    """Share of the first experience's accuracy that is left at the end: R[T, 1] / R[1, 1]."""
    learned = r[1, 0]
    return r[-1, 0] / learned if learned > 0 else float("nan")


def intransigence(r: AccuracyMatrix, joint: AccuracyMatrix | Mapping[str, float]) -> float:
    """Mean over j of R*[T, j] - R[j, j], R* being joint training on all the data.

    Source: Chaudhry et al. 2018 (RWalk), eq. 5, with one joint model for all experiences.

    Args:
        joint: its matrix, or its accuracies by experience identity; nan if any is missing.

    Raises:
        BadInput: `r` has no experience_ids.
    """
    by_identity = joint.last() if isinstance(joint, AccuracyMatrix) else joint
    return _mean(_reference(r, by_identity) - _diagonal(r))


def forward_transfer_from_experts(r: AccuracyMatrix, experts: Mapping[str, float]) -> float:
    """Mean over j > 1 of R[j, j] - E[j]: what earlier experiences give to learning a new one.

    E[j] is the accuracy on experience j of a model that was trained on it alone, from scratch.

    Source: Wang et al. 2024 (survey of continual learning), forward transfer.

    Args:
        experts: E by experience identity; nan if any but the first is missing.

    Raises:
        BadInput: `r` has no experience_ids.
    """
    return _mean((_diagonal(r) - _reference(r, experts))[1:])


def curriculum_alpha(r: AccuracyMatrix) -> float:
    """The average accuracy, mean_j R[T, j], under the name it has in F.

    Source: Singh et al. 2023 (Learning to Learn).
    """
    return average_accuracy(r)


def curriculum_beta(r: AccuracyMatrix) -> float:
    """What is lost of the first experience alone: R[1, 1] - R[T, 1].

    Source: Singh et al. 2023.
    """
    return r[1, 0] - r[-1, 0]


def curriculum_f(r: AccuracyMatrix) -> float:
    """F = 2 alpha / (alpha beta + 1), from 0 to 2; more is better.

    Source: Singh et al. 2023. It is no harmonic mean, and large where the last
    experience alone is known: see :func:`curriculum_f_above_floor`.
    """
    return _f(curriculum_alpha(r), curriculum_beta(r))


def curriculum_f_above_floor(r: AccuracyMatrix) -> float:
    """F less its value after complete forgetting, where only R[T, T] is 1: alpha 1/T, beta 1."""
    return curriculum_f(r) - _f(1 / len(r), 1.0)


def calibration_error(errors: AccuracyMatrix) -> float:
    """Mean over all experiences of the expected calibration error after the last one.

    Source: Guo et al. 2017, eq. 3, with 15 bins.

    Args:
        errors: entry [i, j] is the error on experience j after i experiences.
    """
    return _mean(errors.values[-1])


def anytime_accuracy(curve: Sequence[Sequence[float]]) -> float:
    """Area under the accuracy curve: the mean over all samples of the next accuracy measured.

    Source: Koh et al. 2022 (CLIB), A_AUC: the sum of f(i) times the samples since the measurement
    before, here divided by all samples.

    Args:
        curve: [samples shown so far, accuracy], by growing numbers of samples.
    """
    samples, accuracy = np.asarray(curve, dtype=np.float64).T
    return float(np.average(accuracy, weights=np.diff(samples, prepend=0)))


def _f(alpha: float, beta: float) -> float:
    return 2 * alpha / (alpha * beta + 1)


METRICS: Mapping[str, Callable[[AccuracyMatrix], float]] = {
    "average_accuracy": average_accuracy,
    "average_incremental_accuracy": average_incremental_accuracy,
    "forgetting": forgetting,
    "forgetting_since_learned": forgetting_since_learned,
    "forgetting_from_best": forgetting_from_best,
    "forgetting_consecutive": forgetting_consecutive,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
    "learning_accuracy": learning_accuracy,
    "first_task_retention": first_task_retention,
    "curriculum.alpha": curriculum_alpha,
    "curriculum.beta": curriculum_beta,
    "curriculum.f": curriculum_f,
    "curriculum.f_above_floor": curriculum_f_above_floor,
}


def compute_metrics(r: AccuracyMatrix) -> dict[str, float]:
    """Every metric of a matrix by name."""
    return {name: metric(r) for name, metric in METRICS.items()}


def _diagonal(r: AccuracyMatrix) -> np.ndarray:
    """R[j, j] for j = 1..T: each experience right after it was learned."""
    return np.diagonal(r.values, offset=-1)


def _reference(r: AccuracyMatrix, accuracies: Mapping[str, float]) -> np.ndarray:
    """The accuracy that a reference has in each column, nan where it has none."""
    if len(r.experience_ids) != len(r):
        raise BadInput(
            f"an accuracy matrix of {len(r)} experiences has {len(r.experience_ids)} "
            "experience_ids: what is compared with a reference needs one for each; give them"
        )
    return np.array([accuracies.get(e, np.nan) for e in r.experience_ids])


def _mean(values: object) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else float("nan")
