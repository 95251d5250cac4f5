"""What a run may do around the steps of an experience: clipping, accumulation, averages, stopping.

What is about a single step is in the optimizer itself, so it holds for whatever a strategy does in
its training step, and costs nothing where it is not asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.optim import Optimizer

from cl_platform.core.strategy import Strategy

if TYPE_CHECKING:
    from cl_platform.config.training import EarlyStopping


def clip(optimizer: Optimizer, norm: float | None, value: float | None) -> None:
    """Have gradients clipped before each step: single numbers first, then the norm of all.

    Args:
        norm: the largest norm of the gradient of all that is trained; None or 0 leaves it.
        value: the largest absolute value of each of its numbers; None leaves them.
    """

    def before_step(optimizer: Optimizer, *_: object) -> None:
        if value:
            clip_grad_value_(trained_by(optimizer), value)
        if norm:
            clip_grad_norm_(trained_by(optimizer), norm)

    if norm or value:
        optimizer.register_step_pre_hook(before_step)


def measure_gradient(optimizer: Optimizer, norms: list[Tensor]) -> None:
    """Have the norm of the gradient of all that is trained appended at each step, after clipping;
    it stays on the device."""

    def before_step(optimizer: Optimizer, *_: object) -> None:
        norms.append(get_total_norm([p.grad for p in trained_by(optimizer) if p.grad is not None]))

    optimizer.register_step_pre_hook(before_step)


def trained_by(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters of an optimizer, in its order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class Accumulation:
    """One step of an optimizer for several batches, by the mean of their gradients.

    A group ends with its `size`-th batch, or with the epoch: then it is the mean of fewer. The
    optimizer's ``zero_grad`` and ``step`` do nothing but at a group's beginning and end.
    """

    def __init__(self, optimizer: Optimizer, size: int) -> None:
        self.size = size
        self.place, self.ends = 0, False  # of the present batch in its group; is it the last?
        zero_grad, step = optimizer.zero_grad, optimizer.step

        def zero_grad_first(optimizer: Optimizer, set_to_none: bool = True) -> None:
            if self.place == 0:
                zero_grad(set_to_none)

        def step_last(optimizer: Optimizer, closure: None = None) -> None:
            if self.ends:
                gradients = [p.grad for p in trained_by(optimizer) if p.grad is not None]
                if self.place and gradients:
                    torch._foreach_div_(gradients, self.place + 1)
                step()

        # Methods, since torch's schedules wrap the step of an optimizer in the same way.
        patched: Any = optimizer
        patched.zero_grad = MethodType(zero_grad_first, optimizer)
        patched.step = MethodType(step_last, optimizer)

    def begin(self, batch: int, batches: int) -> None:
        """Announce a batch by its number in the epoch, from 0; an epoch has so many."""
        self.place = batch % self.size
        self.ends = self.place + 1 == self.size or batch + 1 == batches


class WeightAverage:
    """An exponential moving average of the weights, for evaluation; training does not notice.

    After each step, average = d average + (1 - d) weights with d = min(decay, (1 + t) / (10 + t))
    after t steps, so that the first average is not that of untrained weights (as in TensorFlow's
    ``ExponentialMovingAverage``; Polyak & Juditsky 1992 for the idea). Weights that an experience
    adds or sets anew at its beginning start their average there; those it does not train keep
    theirs. Buffers, such as the running statistics of batch norm, are not averaged.

    Args:
        memory: what :meth:`memory` returned for the experience before; empty to start anew.
    """

    def __init__(self, decay: float, memory: Mapping[str, Any]) -> None:
        self.decay = decay
        self.steps: int = memory.get("steps", 0)
        self.weights: dict[str, Tensor] = dict(memory.get("weights", {}))

    def memory(self) -> dict[str, Any]:
        """Return what goes into a state: the number of steps, and the average by name."""
        return {"steps": self.steps, "weights": self.weights}

    def follow(self, module: nn.Module, optimizer: Optimizer, unchanged: set[str]) -> None:
        """Average what an optimizer trains from now on.

        Args:
            unchanged: names of the parameters whose average so far still stands.
        """
        named = dict(module.named_parameters())
        self.weights = {
            n: w.to(named[n].device)
            for n, w in self.weights.items()
            if n in unchanged and n in named and w.shape == named[n].shape
        }
        trained = {name: p for name, p in named.items() if p.requires_grad}
        for name, p in trained.items():
            self.weights.setdefault(name, p.detach().clone())
        averages = [self.weights[name] for name in trained]
        weights = [p.detach() for p in trained.values()]

        def after_step(*_: object) -> None:
            d = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(averages, weights, 1 - d)
            self.steps += 1

        optimizer.register_step_post_hook(after_step)

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go back to what :meth:`memory` returned earlier in the same experience."""
        self.steps = memory["steps"]
        for name, value in memory["weights"].items():
            self.weights[name].copy_(value)


@contextmanager
def evaluating(strategy: Strategy, average: Mapping[str, Any]) -> Iterator[None]:
    """Give a strategy the weights it is evaluated with; those it is trained with come back.

    Args:
        average: of a state, ``State.average``; it comes before the strategy's own
            :meth:`Strategy.evaluation_weights`. Where both are empty, nothing changes.
    """
    weights = average.get("weights", {}) or strategy.evaluation_weights()
    named = (*strategy.named_parameters(), *strategy.named_buffers()) if weights else ()
    swapped = [(p, p.data, weights[n]) for n, p in named if n in weights]
    try:
        for p, _, shown in swapped:
            p.data = shown.to(p.device)
        yield
    finally:
        for p, own, _ in swapped:
            p.data = own


class Snapshot:
    """All that training changes within an experience, to go back to."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer | None, average: WeightAverage | None
    ) -> None:
        self.module, self.optimizer, self.average = module, optimizer, average
        moments = optimizer.state_dict() if optimizer is not None else {}
        averaged = average.memory() if average is not None else {}
        self.parts: tuple[Any, ...] = copy.deepcopy((module.state_dict(), moments, averaged))

    def restore(self) -> None:
        state, moments, averaged = self.parts
        self.module.load_state_dict(state, strict=False)  # frozen models are in no state
        if self.optimizer is not None:
            self.optimizer.load_state_dict(moments)
        if self.average is not None:
            self.average.restore(averaged)


class Stopper:
    """Early stopping: watches a score after epochs, and says when to stop.

    Source: Prechelt 1998, "Early Stopping - But When?", with patience as the criterion.

    Args:
        score: evaluates what is being trained, on validation data alone and without a trace; more
            is better.
        snapshot: copies what training changes, to go back to.
    """

    def __init__(
        self, config: EarlyStopping, score: Callable[[], float], snapshot: Callable[[], Snapshot]
    ) -> None:
        self.config, self.score, self.snapshot = config, score, snapshot
        self.best = -float("inf")
        self.waited = 0
        self.kept: Snapshot | None = None

    def stops_after(self, epochs: int) -> bool:
        """Return whether to stop after so many epochs."""
        if epochs % self.config.every:
            return False
        value = self.score()
        if value > self.best:
            self.best, self.waited = value, 0
            if self.config.restore_best:
                self.kept = self.snapshot()
        else:
            self.waited += 1
        return self.waited >= self.config.patience

    def finish(self) -> None:
        """Go back to the best state that was seen, unless the last one is wanted."""
        if self.kept is not None and self.waited:
            self.kept.restore()
