"""Lanes: runs that differ in numbers only, trained side by side in one process.

Each lane is a fold with a strategy, generators and memory of its own. Batches are prepared, states
saved and accuracies measured for one lane after the other; loss, gradient and the optimizer's step
are computed for all lanes at once, on stacked weights. Where that cannot be done, or would not give
the bits of a separate run, each lane takes its own steps. There are no checkpoints in the midst of
an experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from cl_platform.core.rng import deterministic, global_generators
from cl_platform.core.wrapper import innermost
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.choice import unfit
from cl_platform.engine.lanes.lane import Lane
from cl_platform.engine.lanes.logits import shared_logits
from cl_platform.engine.lanes.stack import Apart, Stack, stacked, unstackable
from cl_platform.engine.machine.cost import Stopwatch
from cl_platform.errors import ClpError

Report = Callable[[int, str], None]
"""Called with the step and the reason where lanes take their own steps."""


def run_lanes(
    folds: Sequence[Fold],
    upto: Sequence[int | None] = (),
    report: Report = lambda k, why: None,
) -> list[ClpError | None]:
    """Carry folds to their ends, or through their first `upto` steps, side by side where they can.

    All records and states are in their stores afterwards, as after :meth:`Fold.run`.

    Returns:
        What failed, by fold; a fold that fails does not touch the others.
    """
    failed: list[ClpError | None] = [None] * len(folds)
    ends = [*upto] or [None] * len(folds)
    paths = [fold.untrained(fold.wanted(end)) for fold, end in zip(folds, ends, strict=True)]
    waiting: dict[int, int] = {}  # the step that a fold is to be trained for
    moving = [*range(len(folds))]
    compared: Counter[Any] = Counter()
    with deterministic(folds[0].device):
        while True:
            with _evaluated([folds[i] for i in moving if failed[i] is None], compared):
                for i in moving:
                    try:
                        if failed[i] is None and (k := next(paths[i], 0)):
                            waiting[i] = k
                    except ClpError as error:
                        failed[i] = error
            if not waiting:
                return failed
            moving = [i for i, k in waiting.items() if k == min(waiting.values())]
            trained = train_lanes([folds[i] for i in moving], compared, report)
            for i, found in zip(moving, trained, strict=True):
                del waiting[i]
                failed[i] = found


@contextmanager
def _evaluated(folds: Sequence[Fold], compared: Counter[Any]) -> Iterator[None]:
    """Have the present states of folds evaluated in one pass, where that gives the same bits."""
    begun = [fold for fold in folds if fold.position >= 0 and not fold.plan.measures]
    ready = [fold for fold in begun if not unfit(fold.plan, fold.strategy)]
    x = ready[0].sample() if ready else None
    models = [innermost(fold.strategy).model for fold in ready if fold.sample() is x]
    with nullcontext() if x is None else shared_logits(models, x, compared):
        yield


def train_lanes(
    folds: Sequence[Fold], compared: Counter[Any], report: Report = lambda k, why: None
) -> list[ClpError | None]:
    """Train one step of each fold, all of the same number, side by side where that can be done.

    Each fold ends with the same state as after :meth:`Fold.train`; the seconds are shared evenly.

    Args:
        compared: see :class:`Stack`.

    Returns:
        What failed, by fold.
    """
    if why := _refusal(folds):
        report(folds[0].position + 1, why)
        return [_alone(fold) for fold in folds]
    clock = Stopwatch(folds[0].device)
    with global_generators(0), folds[0].choices.computing():
        lanes = [*map(Lane, folds)]
        while going := [lane for lane in lanes if lane.batch is not None]:
            try:
                if len(going) == 1:
                    raise Apart("there is one")
                with stacked([lane.learner for lane in going], compared) as stack:
                    _together(stack, going)
            except Apart as apart:
                report(going[0].k, str(apart))
                for lane in going:
                    lane.step_alone()
    seconds = clock.seconds() / len(lanes)
    for lane in lanes:
        lane.finish(seconds)
    return [lane.error for lane in lanes]


def _together(stack: Stack, lanes: Sequence[Lane]) -> None:
    """Take steps of all lanes at once, until one of them has ended."""
    while True:
        batches = [lane.batch for lane in lanes if lane.batch is not None]
        if len(batches) < len(lanes):
            return
        for lane, loss in zip(lanes, stack.step(batches), strict=True):
            lane.resume(loss)


def _refusal(folds: Sequence[Fold]) -> str | None:
    """Return why folds cannot take any step side by side."""
    if len(folds) == 1:
        return "there is one"
    model = innermost(folds[0].strategy).model
    return unfit(folds[0].plan, folds[0].strategy) or unstackable([model])


def _alone(fold: Fold) -> ClpError | None:
    try:
        fold.train()
    except ClpError as error:
        return error
    return None
