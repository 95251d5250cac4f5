"""Models of one shape on stacked weights: logits, gradients and steps of all of them at once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_platform.core.batch import Batch, cross_entropy
from cl_platform.core.rng import global_states, set_global_states
from cl_platform.core.strategy import Strategy
from cl_platform.engine.lanes.layers import Layer, Stacked
from cl_platform.engine.machine.uncompiled import step_without_compiler
from cl_platform.errors import one_line

BY_ELEMENT = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)  # whose steps can be stacked
COMPARED = 2  # steps on batches of a shape that are compared with separate ones


class Apart(Exception):
    """Lanes cannot take a step side by side; says why, in a few words, and nothing has changed."""


class Stack:
    """Strategies whose step is a cross-entropy and an optimizer's step, on stacked weights.

    The logits are those of a copy of the first model, whose linear layers take the inputs of all
    lanes, one lane after the other, each by its own weights. The first steps on batches of a shape
    are compared with separate ones.

    Args:
        learners: strategies, without wrappers, with their optimizers.
        compared: how many steps were compared before, by the shape of the batches.
    """

    def __init__(self, learners: Sequence[Strategy], compared: Counter[Any]) -> None:
        self.learners, self.compared = learners, compared
        models = [learner.model for learner in learners]
        if why := unstackable(models) or _unlike(learners):
            raise Apart(why)
        self.model = copy.deepcopy(models[0])
        self.parameters: list[Stacked] = []
        for layer, *own in zip(*(m.modules() for m in (self.model, *models)), strict=True):
            if isinstance(layer, nn.Linear):
                weight = Stacked.of([each.weight for each in own])
                bias = None if layer.bias is None else Stacked.of([each.bias for each in own])
                self.parameters += [weight] if bias is None else [weight, bias]
                vars(layer)["forward"] = Layer(weight, bias)
        self.optimizer = self._stacked_optimizer()
        self.shown = False  # whether each lane's optimizer has its part of the moments
        self.room: Tensor | None = None  # for inputs

    def step(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Take a step of every lane; return their losses, detached.

        Args:
            batches: whose inputs `x` are as they are stored.

        Raises:
            Apart: it cannot be done, and nothing has changed.
        """
        shape = shape_of(batches)
        losses = self._compared(batches) if self.compared[shape] < COMPARED else None
        if losses is None:
            losses = self._backward(batches)
        self.compared[shape] += 1
        if self.optimizer is None:
            for stacked in self.parameters:
                stacked.link()
            for learner in self.learners:
                learner.optimizer.step()
        else:
            settings = _settings(self._first)  # as a schedule has them now
            for group, own in zip(self.optimizer.param_groups, settings, strict=True):
                group.update(own)
            self.optimizer.step()
            if not self.shown:
                self._show_moments()
        return list(losses.unbind())

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        """Make the gradients of the lanes' losses; return the losses, (L,)."""
        n, size = len(batches), len(batches[0])
        info = self.learners[0].info
        logits: Tensor = self.model(self._inputs([batch.raw for batch in batches]))
        allowed = [learner.competing(batch.task) for learner, batch in self._pairs(batches)]
        if allowed[0] is not None:
            rows = torch.cat([a.expand(size, -1) for a in allowed if a is not None])
            logits = logits.masked_fill(~rows, -torch.inf)
        y = torch.cat([batch.y for batch in batches])
        losses = cross_entropy(logits, y, info.label_smoothing, "none").view(n, size).mean(1)
        losses.sum().backward()
        return losses.detach()

    def _inputs(self, raw: Sequence[Tensor]) -> Tensor:
        """Return the inputs that the model sees for batches of all lanes, one after the other."""
        shape = (len(raw) * len(raw[0]), *raw[0].shape[1:])
        if self.room is None or self.room.shape != shape:
            self.room = raw[0].new_empty(shape, dtype=torch.float32)
        preprocess = self.learners[0].info.preprocess
        for stored, into in zip(raw, self.room.split(len(raw[0])), strict=True):
            if preprocess(stored, out=into) is not into:
                raise Apart("inputs change their shape")
        return self.room

    def _pairs(self, batches: Sequence[Batch]) -> Iterator[tuple[Strategy, Batch]]:
        return zip(self.learners, batches, strict=True)

    def _compared(self, batches: Sequence[Batch]) -> Tensor:
        """Make the gradients, and hold them to those of separate steps."""
        states = global_states()
        try:
            own = [with_inputs(learner, batch) for learner, batch in self._pairs(batches)]
            separate = [self._separate(i, batch) for i, batch in enumerate(own)]
            losses = self._backward(batches)
        except Exception as error:
            raise Apart(one_line(error)) from error
        finally:
            set_global_states(states)
        for i, gradients in enumerate(separate):
            for stacked, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None or not torch.equal(stacked.gradient[i], gradient):
                    raise Apart("their gradients have other bits than separate ones")
        return losses

    def _separate(self, i: int, batch: Batch) -> Sequence[Tensor | None]:
        """Return the gradients of a lane without the others."""
        learner = self.learners[i]
        with learner.info.rng.rewound():
            own = [stacked.own[i] for stacked in self.parameters]
            return torch.autograd.grad(learner.loss(batch), own, allow_unused=True)

    @property
    def _first(self) -> Optimizer:
        return self.learners[0].optimizer

    def _stacked_optimizer(self) -> Optimizer | None:
        """Return one optimizer for all lanes; None where their steps are not the same function of
        single numbers."""
        optimizers = [learner.optimizer for learner in self.learners]
        alike = all(_settings(one) == _settings(optimizers[0]) for one in optimizers)
        hooks = any(one._optimizer_step_pre_hooks for one in optimizers)  # clipping
        moments = [
            [one.state[p] for one, p in zip(optimizers, stacked.own, strict=True)]
            for stacked in self.parameters
        ]
        alike &= all(_same_steps(each) for each in moments)
        # A fused step has other bits at other places of a tensor.
        fused = any(group.get("fused") for group in self._first.param_groups)
        if type(self._first) not in BY_ELEMENT or hooks or fused or not alike:
            return None
        stacks = {id(stacked.own[0]): stacked for stacked in self.parameters}
        groups = [
            {**own, "params": [stacks[id(p)].values for p in group["params"]]}
            for own, group in zip(_settings(self._first), self._first.param_groups, strict=True)
        ]
        optimizer = type(self._first)(groups, **self._first.defaults)
        step_without_compiler(optimizer)
        for stacked, each in zip(self.parameters, moments, strict=True):
            optimizer.state[stacked.values] = {
                name: torch.stack([own[name] for own in each]) if _has_lanes(first) else first
                for name, first in own_moments(each[0]).items()
            }
        for one in optimizers:
            untyped: Any = one
            untyped._opt_called = True  # else torch warns of a schedule that goes first
        return optimizer

    def _show_moments(self) -> None:
        """Let each lane's optimizer have its part of the moments."""
        assert self.optimizer is not None
        self.shown = True
        for stacked in self.parameters:
            moments = self.optimizer.state[stacked.values]
            for i, (learner, p) in enumerate(zip(self.learners, stacked.own, strict=True)):
                parts = {n: v[i] if _has_lanes(v) else v for n, v in moments.items()}
                learner.optimizer.state[p] = parts

    def release(self) -> None:
        """Give each lane tensors of its own again."""
        for stacked in self.parameters:
            stacked.release()
            for learner, p in zip(self.learners, stacked.own, strict=True):
                if p in learner.optimizer.state:
                    learner.optimizer.state[p] = own_moments(learner.optimizer.state[p])


@contextmanager
def stacked(learners: Sequence[Strategy], compared: Counter[Any]) -> Iterator[Stack]:
    """Stack strategies, and give them tensors of their own again in the end.

    Raises:
        Apart: they do not fit together.
    """
    stack = Stack(learners, compared)
    try:
        yield stack
    finally:
        stack.release()


def unstackable(models: Sequence[nn.Module]) -> str | None:
    """Return why models cannot be stacked, in a few words; None if they can."""
    first = models[0]
    layers = [module for module in first.modules() if type(module) is nn.Linear]
    within = [p for layer in layers for p in layer.parameters()]
    if [*map(id, within)] != [*map(id, first.parameters())]:
        return f"{type(first).__name__} has weights beside linear layers"
    if not within or not all(p.requires_grad for p in within) or any(True for _ in first.buffers()):
        return f"{type(first).__name__} has buffers or frozen weights"
    kinds = [[type(module) for module in model.modules()] for model in models]
    shapes = [[p.shape for p in model.parameters()] for model in models]
    if any(each != kinds[0] for each in kinds) or any(each != shapes[0] for each in shapes):
        return "their models have other shapes"
    return None


def _unlike(learners: Sequence[Strategy]) -> str | None:
    """Return how strategies differ in what they make of a batch; None if they do not."""
    first = learners[0].info
    for learner in learners:
        info = learner.info
        if info.preprocess != first.preprocess or info.label_smoothing != first.label_smoothing:
            return "their inputs or labels differ"
        if len([*learner.parameters()]) != len([*learner.model.parameters()]):
            return f"{type(learner).__name__} trains more than its model"
    return None


def shape_of(batches: Sequence[Batch]) -> tuple[Any, ...]:
    """Return what decides the arithmetic of a step, and by which ways it is computed.

    Raises:
        Apart: the batches have other sizes.
    """
    shapes = {(batch.raw.shape, batch.replayed) for batch in batches}
    if len(shapes) > 1:
        raise Apart("their batches have other sizes")
    return len(batches), *shapes.pop()


def with_inputs(strategy: Strategy, batch: Batch) -> Batch:
    """Return a batch of stored samples with inputs as the model sees them."""
    return replace(batch, x=strategy.info.preprocess(batch.raw))


def own_moments(moments: dict[str, Any]) -> dict[str, Any]:
    """Return the moments of a parameter in tensors of their own."""
    return {n: v.clone() if isinstance(v, Tensor) else v for n, v in moments.items()}


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings of an optimizer's groups."""
    groups = optimizer.param_groups
    return [{name: v for name, v in group.items() if name != "params"} for group in groups]


def _has_lanes(moment: Any) -> bool:
    return isinstance(moment, Tensor) and moment.dim() > 0


def _same_steps(moments: Sequence[dict[str, Any]]) -> bool:
    """Return whether the moments of a parameter are of the same kind in all lanes, and the numbers
    among them, of steps, equal."""
    first = moments[0]
    return all(
        own.keys() == first.keys()
        and all(_has_lanes(v) or own[name] == v for name, v in first.items())
        for own in moments
    )
