"""One of the runs that are trained side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from cl_platform.core.batch import Batch
from cl_platform.core.rng import global_generators, global_states, set_global_states
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper, innermost
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.stack import own_moments, with_inputs
from cl_platform.engine.training import Trained
from cl_platform.errors import ClpError


class Lane:
    """A fold in the midst of one of its steps, whose batches have inputs as they are stored.

    Attributes:
        batch: to be learned next; None before the beginning and at the end.
        error: what failed.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold, self.k = fold, fold.position + 1
        self.batch: Batch | None = None
        self.last = True  # batch of its chunk
        self.error: ClpError | None = None
        self.trained: Trained | None = None
        steps = {type(s).after_step for s in fold.strategy.modules() if isinstance(s, Strategy)}
        self.acts = bool(steps - {Strategy.after_step, Wrapper.after_step})  # and may draw
        try:
            self.lesson = self.fold.lesson(beside=True)
            with global_generators(self.lesson.seed):
                self.drawn = global_states()
        except ClpError as error:
            self.error = error
        else:
            self.resume(None)

    @property
    def learner(self) -> Strategy:
        return innermost(self.fold.strategy)

    def resume(self, loss: Tensor | None) -> None:
        """Give the loss of the present batch, and go on to the next one."""
        with self._turn(self.last or self.acts):
            try:
                self.batch, self.last = self.lesson.steps.send(loss)  # type: ignore[arg-type]
            except StopIteration as stop:
                self.batch, self.trained = None, stop.value

    def step_alone(self) -> None:
        """Take a step without the other lanes."""
        loss = None
        with self._turn(True):
            assert self.batch is not None
            strategy = self.fold.strategy
            loss = strategy.training_step(with_inputs(strategy, self.batch))
        if loss is not None:
            self.resume(loss)

    def finish(self, seconds: float) -> None:
        """Take up what was trained, in so many seconds."""
        if self.trained is None:
            return
        moments = self.trained.optimizer
        self.trained.optimizer = {name: own_moments(own) for name, own in moments.items()}
        self.lesson.meter.took(seconds)
        try:
            self.fold.finish(self.lesson, self.trained)
        except ClpError as error:
            self.error = error

    @contextmanager
    def _turn(self, draws: bool) -> Iterator[None]:
        """Note what fails inside; let the global generators be the lane's own if it may draw."""
        others = global_states() if draws else None
        try:
            if draws:
                set_global_states(self.drawn)
            with self.fold.blaming(self.k):
                yield
        except ClpError as error:
            self.batch, self.error = None, error
        finally:
            if others is not None:
                self.drawn = global_states()
                set_global_states(others)
