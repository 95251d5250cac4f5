"""The domain-agnostic suite of lifelong-learning metrics: one name, one definition each.

Performances are smoothed and mapped to 1..101 first
(:func:`cl_platform.metrics.lifelong.curves.prepare`): a point is a hundredth of the range of
values, which the log states or the data show.

What is not defined for a log is nan and does not count in averages.

Sources: New et al. 2022 (arXiv:2201.08278) and Baker et al. 2023 (arXiv:2301.07799) for the
definitions; the package l2metrics for the details.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from cl_platform.metrics.lifelong.curves import (
    extremes,
    falls,
    prepare,
    recovery_time,
    saturation_of,
)
from cl_platform.metrics.lifelong.logs import Block, LifelongLog, by_task

NAN = float("nan")
LEAST_SATURATION = 0.2  # of the expert's, below which nothing was learned

AVERAGED = (
    "performance_maintenance",
    "relative_performance",
    "sample_efficiency",
    "performance_recovery",
    "average_training_performance",
    "average_evaluation_performance",
)
TRANSFERS = (
    "forward_transfer_ratio",
    "forward_transfer_contrast",
    "backward_transfer_ratio",
    "backward_transfer_contrast",
)
LIFELONG_METRICS = tuple(f"lifelong.{name}" for name in AVERAGED + TRANSFERS)


@dataclass(frozen=True)
class Transfer:
    """The evaluations of one task right before and right after another one was trained."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """after / before; nan from 0."""
        return _divide(self.after, self.before)

    @property
    def contrast(self) -> float:
        """(after - before) / (after + before); nan where they sum to 0."""
        return _divide(self.after - self.before, self.after + self.before)


@dataclass(frozen=True)
class ExpertComparison:
    """A task's training against one run of its single-task expert.

    Args:
        relative_performance: the sum of the task's training curve over that of the expert's, both
            as far as the shorter one goes.
        saturation: the highest value of the expert's curve, smoothed once more.
        experiences_to_saturation: how many experiences come before it.
        saturation_ratio: the task's saturation over the expert's.
        experience_ratio: the expert's experiences to saturation over the task's.
        sample_efficiency: the product of both ratios. It is 0 where the task's saturation is below
            a fifth of the expert's or the least-squares line through its training curve falls;
            else nan where either curve is highest at its first experience.
    """

    relative_performance: float
    saturation: float
    experiences_to_saturation: int
    saturation_ratio: float
    experience_ratio: float
    sample_efficiency: float


@dataclass(frozen=True)
class TaskMetrics:
    """All figures of one task, of prepared performances (1..101) unless said otherwise.

    Args:
        value_range: the raw performances that are mapped to 1 and 101.
        minimum, maximum: over all of the task's blocks.
        training_experiences, evaluation_experiences: how many there are.
        training, evaluation: the mean of each block that has values.
        maintenance: for each evaluation right after the task was trained (and with others before
            the next one), how much later evaluations exceed it.
        recovery_times: for each training block but the first, the experiences until performance
            is back at the terminal value (mean of the last tenth) of the one before; one more than
            it has if that never happens.
        saturation, experiences_to_saturation: of all training blocks in a row, as for an expert;
            nan without a training curve.
        experts: one comparison per run of an expert; none without a training curve.
        forward, backward: what training this task did to each other one that was not yet trained
            itself, or was; in order of occurrence.
    """

    value_range: tuple[float, float]
    minimum: float
    maximum: float
    training_experiences: int
    evaluation_experiences: int
    training: tuple[float, ...]
    evaluation: tuple[float, ...]
    maintenance: tuple[tuple[float, ...], ...]
    recovery_times: tuple[int, ...]
    saturation: float
    experiences_to_saturation: float
    experts: tuple[ExpertComparison, ...]
    forward: Mapping[str, tuple[Transfer, ...]] = field(default_factory=dict)
    backward: Mapping[str, tuple[Transfer, ...]] = field(default_factory=dict)

    @property
    def performance_maintenance(self) -> float:
        """Mean of all differences in `maintenance`: points kept (or won) while others are learned.

        Called MRLEP in l2metrics: the reference is the most recent evaluation after learning.
        """
        return _mean(value for group in self.maintenance for value in group)

    @property
    def performance_recovery(self) -> float:
        """Minus the Theil-Sen slope of the recovery times: above 0 if the task recovers faster
        each time. nan for fewer than two times."""
        if len(self.recovery_times) < 2:
            return NAN
        from scipy.stats import theilslopes

        return 0.0 - float(theilslopes(self.recovery_times)[0])  # 0 - 0 is no -0

    @property
    def relative_performance(self) -> float:
        """Mean over the expert's runs."""
        return _mean(expert.relative_performance for expert in self.experts)

    @property
    def sample_efficiency(self) -> float:
        """Mean over the expert's runs."""
        return _mean(expert.sample_efficiency for expert in self.experts)

    @property
    def average_training_performance(self) -> float:
        """Mean over training blocks of their mean performance."""
        return _mean(self.training)

    @property
    def average_evaluation_performance(self) -> float:
        """Mean over evaluations of their mean performance."""
        return _mean(self.evaluation)

    def transfers(self, name: str) -> dict[str, float]:
        """Return what this task gives each other one, where that is first defined.

        Args:
            name: ``forward_transfer_ratio``, ``backward_transfer_contrast`` and so on.
        """
        direction, _, form = name.split("_")
        found: Mapping[str, tuple[Transfer, ...]] = getattr(self, direction)
        values = {task: [getattr(each, form) for each in found[task]] for task in found}
        return {
            task: next((value for value in several if not np.isnan(value)), NAN)
            for task, several in values.items()
        }

    def metrics(self) -> dict[str, float]:
        """Return the ten metrics by name; transfer is the mean over the tasks that receive any."""
        averaged: dict[str, float] = {name: getattr(self, name) for name in AVERAGED}
        given = {name: _mean(self.transfers(name).values()) for name in TRANSFERS}
        return {f"lifelong.{name}": value for name, value in (averaged | given).items()}


def lifelong_metrics(log: LifelongLog, experts: Sequence[LifelongLog] = ()) -> dict[str, float]:
    """Return the ten metrics of a lifetime by name (``LIFELONG_METRICS``).

    Transfer is the mean over pairs of tasks, of which only the first occurrence counts; the others
    are means over tasks of :class:`TaskMetrics`' values. Maintenance and the averages are in points
    of the prepared scale, recovery in experiences per block, the rest has no unit.

    Args:
        experts: runs that train one task each; without any, relative performance and sample
            efficiency are nan.

    Raises:
        BadInput: an expert trains no task or several, or has no training curve.
    """
    tasks = task_metrics(log, experts).values()
    values = {name: _mean(getattr(task, name) for task in tasks) for name in AVERAGED}
    for name in TRANSFERS:
        values[name] = _mean(value for task in tasks for value in task.transfers(name).values())
    return {f"lifelong.{name}": value for name, value in values.items()}


def task_metrics(log: LifelongLog, experts: Sequence[LifelongLog] = ()) -> dict[str, TaskMetrics]:
    """Return all figures of each task, in the order of first training.

    Raises:
        BadInput: as for :func:`lifelong_metrics`.
    """
    prepared = prepare(log, experts)
    blocks_of = by_task(prepared.blocks)
    forward, backward = _transfers(prepared.blocks, log.tasks)
    found = {}
    for task in log.tasks:
        blocks = blocks_of[task]
        training = [b for b in blocks if b.kind == "train" and len(b.curve)]
        evaluation = [b for b in blocks if b.kind == "evaluation"]
        curve = np.concatenate([np.empty(0), *(b.curve for b in training)])
        minimum, maximum = extremes([b.curve for b in blocks])
        saturation, experiences = saturation_of(curve)
        found[task] = TaskMetrics(
            value_range=prepared.ranges[task],
            minimum=minimum,
            maximum=maximum,
            training_experiences=len(curve),
            evaluation_experiences=sum(len(b.curve) for b in evaluation),
            training=tuple(b.mean for b in training),
            evaluation=tuple(b.mean for b in evaluation),
            maintenance=_maintenance(blocks),
            recovery_times=tuple(recovery_time(a.curve, b.curve) for a, b in pairwise(training)),
            saturation=saturation,
            experiences_to_saturation=experiences,
            experts=tuple(_compare(curve, e) for e in prepared.experts[task] if curve.size),
            forward=forward[task],
            backward=backward[task],
        )
    return found


def _maintenance(blocks: Sequence[Block]) -> tuple[tuple[float, ...], ...]:
    """Return the evaluations of one task less the one right after it was trained last."""
    groups: list[list[float]] = []
    reference, trained = NAN, False
    for block in blocks:
        if block.kind == "train":
            trained = True
        elif trained:
            reference, trained = block.mean, False
            groups.append([])
        elif groups:
            groups[-1].append(block.mean - reference)
    return tuple(tuple(group) for group in groups if group)


def _compare(curve: np.ndarray, expert: np.ndarray) -> ExpertComparison:
    common = min(len(curve), len(expert))
    saturation, experiences = saturation_of(curve)
    expert_saturation, expert_experiences = saturation_of(expert)
    ratio = _divide(saturation, expert_saturation)
    if falls(curve) or saturation < LEAST_SATURATION * expert_saturation:
        efficiency = 0.0
    elif not experiences or not expert_experiences:
        efficiency = NAN
    else:
        efficiency = ratio * expert_experiences / experiences
    return ExpertComparison(
        relative_performance=_divide(curve[:common].sum(), expert[:common].sum()),
        saturation=expert_saturation,
        experiences_to_saturation=int(expert_experiences),
        saturation_ratio=ratio,
        experience_ratio=_divide(expert_experiences, experiences),
        sample_efficiency=efficiency,
    )


Given = dict[str, dict[str, tuple[Transfer, ...]]]


def _transfers(blocks: Sequence[Block], tasks: Sequence[str]) -> tuple[Given, Given]:
    """Return what each task gives which others, forward and backward.

    Evaluations between which the evaluated task is itself trained show learning, not transfer.
    Where several others are trained between two evaluations, each of them is credited.
    """
    forward: Given = {task: {} for task in tasks}
    backward: Given = {task: {} for task in tasks}
    given = dict.fromkeys(tasks, forward)
    before: dict[str, float] = {}
    between: dict[str, dict[str, None]] = {task: {} for task in tasks}
    for block in blocks:
        if block.kind == "train":
            before.pop(block.task, None)
            given[block.task] = backward
            for target in tasks:
                if target != block.task:
                    between[target][block.task] = None
            continue
        for source in between[block.task] if block.task in before else ():
            pairs = given[block.task][source]
            transfer = Transfer(before[block.task], block.mean)
            pairs[block.task] = (*pairs.get(block.task, ()), transfer)
        before[block.task] = block.mean
        between[block.task].clear()
    return forward, backward


def _divide(a: float, b: float) -> float:
    return float(a / b) if b else NAN


def _mean(values: Iterable[float]) -> float:
    """Return the mean of the defined values; nan if there is none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else NAN
