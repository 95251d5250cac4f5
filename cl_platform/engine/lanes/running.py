"""Lanes: runs that differ in numbers only, trained side by side in one process.

Each lane is a fold with a strategy, generators and memory of its own. Batches are prepared, states
saved and accuracies measured for one lane after the other; loss, gradient and optimizer step are
taken for all lanes at once, on stacked weights. Where that cannot be done, or would not give the
bits of a separate run, each lane takes its own steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_platform.core.batch import Batch
from cl_platform.core.rng import deterministic, global_generators
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper
from cl_platform.engine.cost import Stopwatch
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.stack import Apart, Stack
from cl_platform.engine.plan import Plan
from cl_platform.engine.training import Trained
from cl_platform.errors import ClpError

# Optimizers that treat each number by itself, so that those of several lanes may lie in one tensor.
ELEMENTWISE = (
    *("adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop"),
    *("rprop", "sgd"),
)
Report = Callable[[int, str], None]
"""Called with the step and the reason where lanes take their own steps."""


def unfit(plan: Plan, strategy: Strategy) -> str | None:
    """Return why runs like a plan cannot be trained side by side, in a few words; None if they can.

    What only the first steps show is found there: they are compared with separate ones.
    """
    config = plan.config
    if config.optimizer.name.lower() not in ELEMENTWISE:
        return f"optimizer {config.optimizer.name!r} looks at whole tensors"
    for name, absent in {"accumulate": 1, "early_stopping": None, "ema": None}.items():
        if getattr(config, name) not in (absent, 0):
            return f"{name} is set"
    if plan.stream.open:
        return "the stream is open"
    if config.count_flops or config.precision != "float32":
        return "count_flops is set" if config.count_flops else f"precision is {config.precision}"
    inner = learner(strategy)
    if inner.own_loop:
        return f"{type(inner).__name__} has a loop of its own"
    for name in ("training_step", "minimise"):
        if getattr(type(inner), name) is not getattr(Strategy, name):
            return f"{type(inner).__name__} has a {name} of its own"
    return None


def learner(strategy: Strategy) -> Strategy:
    """Return the strategy whose training step a wrapper passes on to."""
    while isinstance(strategy, Wrapper) and type(strategy).training_step is Wrapper.training_step:
        strategy = strategy.inner
    return strategy


def run_lanes(
    folds: Sequence[Fold], upto: Sequence[int | None] = (), report: Report = lambda k, why: None, exact: bool = True
) -> list[ClpError | None]:
    """Carry folds to their ends, or through their first `upto` steps, side by side where they can.

    All records and states are in their stores afterwards, as after :meth:`Fold.run`.

    Returns:
        What failed, by fold; a fold that fails does not touch the others.
    """
    failed: list[ClpError | None] = [None] * len(folds)
    ends = [*upto] or [None] * len(folds)
    paths = [fold.untrained(end) for fold, end in zip(folds, ends, strict=True)]
    waiting: dict[int, int] = {}  # the step that a fold is to be trained for
    moving = range(len(folds))
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
            trained = train_lanes([folds[i] for i in moving], report, exact)
            for i, found in zip(moving, trained, strict=True):
                del waiting[i]
                failed[i] = found


def train_lanes(
    folds: Sequence[Fold], report: Report = lambda k, why: None, exact: bool = True
) -> list[ClpError | None]:
    """Train one step of each fold, all of the same number, side by side where that can be done.

    Each fold ends with the same state as after :meth:`Fold.train`; the seconds are shared evenly.

    Returns:
        What failed, by fold.
    """
    clock = Stopwatch(folds[0].device)
    # Lanes whose optimizers have the same settings lie side by side.
    lanes = sorted(map(Lane, folds), key=lambda lane: repr(lane.fold.plan.config.optimizer))
    with global_generators(0), folds[0].computing():
        if len(lanes) > 1 and (why := _together(lanes, exact)):
            report(lanes[0].k, why)
        for lane in lanes:
            lane.go_on_alone()
    seconds = clock.seconds() / len(lanes)
    for lane in lanes:
        lane.finish(seconds)
    errors = {id(lane.fold): lane.error for lane in lanes}
    return [errors[id(fold)] for fold in folds]


def _together(lanes: Sequence[Lane], exact: bool) -> str | None:
    """Take steps of all lanes at once; return why not to the end, if so."""
    try:
        with ExitStack() as after:
            if why := unfit(lanes[0].fold.plan, lanes[0].fold.strategy):
                return why
            strategies = [lane.fold.strategy for lane in lanes]
            stack = Stack(strategies, [*map(learner, strategies)], exact)
            after.callback(stack.release)
            for lane in lanes:
                lane.start()
            acts = stack.acts = lanes[0].acts
            changed = True
            while going := [lane.batch for lane in lanes if lane.batch is not None]:
                if len(going) < len(lanes):
                    return "some have ended before the others"
                if changed or acts:
                    stack.gather()
                losses, changed = stack.step(going), lanes[0].last
                if changed:
                    stack.share_moments()
                for lane, loss in zip(lanes, losses.unbind(), strict=True):
                    lane.resume(loss)
    except Apart as apart:
        return str(apart)
    return None


class Lane:
    """A fold in the midst of one of its steps.

    Attributes:
        batch: to be learned next; None before the beginning and at the end.
        last: whether it is the last one of its chunk.
        acts: whether something happens after each step that may draw random numbers.
        error: what failed.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold, self.k = fold, fold.position + 1
        self.batch: Batch | None = None
        self.begun, self.last = False, True
        self.error: ClpError | None = None
        self.trained: Trained | None = None
        steps = {type(s).after_step for s in fold.strategy.modules() if isinstance(s, Strategy)}
        self.acts = bool(steps - {Strategy.after_step, Wrapper.after_step})

    def start(self) -> None:
        """Begin the step: prepare its first batches."""
        self.begun = True
        try:
            self.lesson = self.fold.lesson()
            with global_generators(self.lesson.seed):
                self.drawn = _generators()
        except ClpError as error:
            self.error = error
        else:
            self.resume(None)

    def resume(self, loss: Tensor | None) -> None:
        """Give the loss of the present batch, and go on to the next one."""
        with self._turn(self.last or self.acts):
            try:
                self.batch, self.last = self.lesson.steps.send(loss)  # type: ignore[arg-type]
            except StopIteration as stop:
                self.batch, self.trained = None, stop.value

    def go_on_alone(self) -> None:
        """Take the steps that are left, without the other lanes."""
        if not self.begun:
            self.start()
        while self.batch is not None:
            with self._turn(True):
                loss = self.fold.strategy.training_step(self.batch)
            if self.error is None:
                self.resume(loss)

    def finish(self, seconds: float) -> None:
        """Take up what was trained, in so many seconds."""
        if self.trained is not None:
            meter = self.lesson.meter
            meter.train_seconds = max(0.0, seconds - meter.eval_seconds)
            try:
                self.fold.finish(self.lesson, self.trained)
            except ClpError as error:
                self.error = error

    @contextmanager
    def _turn(self, draws: bool) -> Iterator[None]:
        """Note what fails inside; let the global generators be the lane's own if it may draw."""
        others = _generators() if draws else None
        try:
            if draws:
                _set_generators(self.drawn)
            with self.fold.blaming(self.k):
                yield
        except ClpError as error:
            self.batch, self.error = None, error
        finally:
            if others is not None:
                self.drawn = _generators()
                _set_generators(others)


def _generators() -> tuple[Any, ...]:
    """Return the states of the global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_generators(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
