"""Lanes: runs that differ in numbers only, trained side by side in one process.

Each lane is a fold with a strategy, generators and memory of its own. Batches are prepared, states
saved and accuracies measured for one lane after the other; loss and gradient are computed for
all lanes at once, on stacked weights. Where that cannot be done, or would not give the
bits of a separate run, each lane takes its own steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cl_platform.core.rng import deterministic, global_generators
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper
from cl_platform.engine.cost import Stopwatch
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.lane import Lane
from cl_platform.engine.lanes.slots import Apart, OtherBits
from cl_platform.engine.lanes.stack import COMPARED, Stack, shape_of
from cl_platform.engine.plan import Plan
from cl_platform.errors import ClpError

TRIALS = 6  # steps of each kind that are timed

Report = Callable[[int, str], None]
"""Called with the step and the reason where lanes take their own steps."""


@dataclass(frozen=True)
class Way:
    """How lanes are trained.

    Args:
        exact: take only those steps side by side that give the bits of separate ones; else also
            those whose first gradients are close to them.
        calibrate: time both kinds of steps first, and go on with the quicker one.
    """

    exact: bool = True
    calibrate: bool = False


def unfit(plan: Plan, strategy: Strategy) -> str | None:
    """Return why runs like a plan cannot be trained side by side, in a few words; None if they can.

    What only the first steps show is found there: they are compared with separate ones.
    """
    config = plan.config
    if config.ema or config.compile:
        return "ema is set" if config.ema else "steps are compiled"
    if plan.stream.open:
        return "the stream is open"
    if config.count_flops or config.precision != "float32":
        return "count_flops is set" if config.count_flops else f"precision is {config.precision}"
    inner = learner(strategy)
    if inner.own_loop:
        return f"{type(inner).__name__} has a loop of its own"
    if type(inner).training_step is not Strategy.training_step:
        return f"{type(inner).__name__} has a training step of its own"
    return None


def learner(strategy: Strategy) -> Strategy:
    """Return the strategy whose training step a wrapper passes on to."""
    while isinstance(strategy, Wrapper) and type(strategy).training_step is Wrapper.training_step:
        strategy = strategy.inner
    return strategy


def run_lanes(
    folds: Sequence[Fold],
    upto: Sequence[int | None] = (),
    way: Way | None = None,
    report: Report = lambda k, why: None,
) -> list[ClpError | None]:
    """Carry folds to their ends, or through their first `upto` steps, side by side where they can.

    All records and states are in their stores afterwards, as after :meth:`Fold.run`.

    Returns:
        What failed, by fold; a fold that fails does not touch the others.

    Raises:
        ValueError: the lanes need not be exact, but their states are stored.
    """
    if way is not None and not way.exact and any(fold.store.folder for fold in folds):
        raise ValueError("states of other bits would stand under the same keys: use exact lanes")
    failed: list[ClpError | None] = [None] * len(folds)
    ends = [*upto] or [None] * len(folds)
    paths = [fold.untrained(end) for fold, end in zip(folds, ends, strict=True)]
    waiting: dict[int, int] = {}  # the step that a fold is to be trained for
    moving = [*range(len(folds))]
    with deterministic(folds[0].device):
        while True:
            for i in moving:
                try:
                    if failed[i] is None and (k := next(paths[i], 0)):
                        waiting[i] = k
                except ClpError as error:
                    failed[i] = error
            if not waiting:
                return failed
            moving = [i for i, k in waiting.items() if k == min(waiting.values())]
            trained = train_lanes([folds[i] for i in moving], way, report)
            for i, found in zip(moving, trained, strict=True):
                del waiting[i]
                failed[i] = found


def train_lanes(
    folds: Sequence[Fold], way: Way | None = None, report: Report = lambda k, why: None
) -> list[ClpError | None]:
    """Train one step of each fold, all of the same number, side by side where that can be done.

    Each fold ends with the same state as after :meth:`Fold.train`; the seconds are shared evenly.

    Returns:
        What failed, by fold.
    """
    clock = Stopwatch(folds[0].device)
    lanes = [*map(Lane, folds)]
    with global_generators(0), folds[0].choices.computing():
        for why in _together(lanes, way or Way()) if len(lanes) > 1 else ():
            report(lanes[0].k, why)
        for lane in lanes:
            lane.go_on_alone()
    seconds = clock.seconds() / len(lanes)
    for lane in lanes:
        lane.finish(seconds)
    return [lane.error for lane in lanes]


def _together(lanes: Sequence[Lane], way: Way) -> list[str]:
    """Take steps of all lanes at once; return why not all of them to the end, if so."""
    plan, strategies = lanes[0].fold.plan, [lane.fold.strategy for lane in lanes]
    if why := unfit(plan, strategies[0]):
        return [why]
    reasons: dict[str, None] = {}
    try:
        with ExitStack() as after:
            plain = plan.config.accumulate == 1
            stack = Stack(strategies, [*map(learner, strategies)], way.exact, plain)
            after.callback(stack.release)
            for lane in lanes:
                lane.start()
            choices: dict[Any, Choice] = {}
            changed = True
            while going := [lane.batch for lane in lanes if lane.batch is not None]:
                if len(going) < len(lanes):
                    raise Apart("some have ended before the others")
                if changed or lanes[0].acts or not stack.plain:
                    stack.gather()
                choice = choices.setdefault(shape_of(going[0]), Choice(way.calibrate))
                changed = lanes[0].last
                with choice.timed():
                    losses = None
                    if choice.beside:
                        try:
                            losses = stack.step(going)
                        except OtherBits as other:
                            choice.settle(beside=False)
                            reasons[str(other)] = None
                    for i, lane in enumerate(lanes):
                        if losses is None:
                            lane.step_alone()
                        else:
                            lane.resume(losses[i])
                if choice.slower:
                    reasons["separate steps are quicker"] = None
    except Apart as apart:
        reasons[str(apart)] = None
    return [*reasons]


@dataclass
class Choice:
    """Whether steps on batches of one shape are taken side by side.

    Args:
        open: whether that is to be found out, by the seconds that steps of both kinds take.
    """

    open: bool
    beside: bool = True
    slower: bool = False

    def __post_init__(self) -> None:
        self.steps = 0
        self.seconds = [0.0, 0.0]  # of separate steps, and of those side by side

    def settle(self, beside: bool) -> None:
        self.open, self.beside = False, beside

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time a step, if it is open which kind is quicker; both give the same bits."""
        if not self.open:
            yield
            return
        start = time.thread_time()
        yield
        self.steps += 1
        if not self.open or self.steps <= COMPARED:
            return
        self.seconds[self.beside] += time.thread_time() - start
        self.beside = not self.beside
        if self.steps == COMPARED + 2 * TRIALS:
            self.slower = self.seconds[1] > self.seconds[0]
            self.settle(not self.slower)
