"""Strategies on stacked weights: loss and gradient of all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from cl_platform.core.batch import Batch
from cl_platform.core.strategy import Strategy
from cl_platform.engine.lanes.layers import Stacked, aligned
from cl_platform.engine.lanes.slots import (
    Apart,
    OtherBits,
    Slot,
    is_trained,
    numbers,
    rows,
    stacked,
)
from cl_platform.errors import one_line

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # which a loss may change
# What modules may hold without a difference to the loss.
OWN = {*vars(nn.Module()), "info", "optimizer", "given"}
FIELDS = ("x", "y", "task", "raw", "features", "target", "x2", "rows")
COMPARED = 3  # steps on batches of a shape; the first may have gradients of zero
CLOSE = 1e-4  # of losses and gradients, relative to their length, where bits are not asked for


class Stack:
    """Strategies of one shape whose parameters and buffers are views of stacked tensors.

    The loss is that of the first strategy, with the tensors of each lane in the place of its own,
    under ``torch.vmap``. The first steps on batches of a shape are compared with separate ones.

    Args:
        strategies: as the kernel calls them; `learners` are those inside wrappers.
        exact: whether gradients must have the bits of separate ones, or be close to them.
        plain: whether a gradient and a step of the optimizer are all that a step is.
    """

    def __init__(
        self,
        strategies: Sequence[Strategy],
        learners: Sequence[Strategy],
        exact: bool = True,
        plain: bool = True,
    ) -> None:
        self.strategies, self.learners, self.exact = strategies, learners, exact
        self.slots: dict[tuple[int, ...], Slot] = {}
        self.trained: list[Slot] = []
        self.numbers: list[Slot] = []  # attributes that differ
        self.plain = plain and type(learners[0]).minimise is Strategy.minimise
        self.compared: Counter[Any] = Counter()  # steps, by the shape of their batches
        self.gather()

    def gather(self) -> None:
        """Stack the tensors of the lanes that do not lie in a stack yet.

        Raises:
            Apart: they do not fit together.
        """
        found: dict[tuple[int, ...], Slot] = {}
        for modules in self._modules():
            for kind in ("_parameters", "_buffers"):
                tables = [vars(m)[kind] for m in modules]
                for name, tensors in rows(tables):
                    if all(t is tensors[0] for t in tensors) and not is_trained(tensors[0]):
                        continue  # a frozen one that all share
                    key = tuple(map(id, tensors))
                    slot = found.get(key) or self.slots.get(key)
                    if slot is None or not slot.holds:
                        slot = stacked(name, tensors)
                    if key not in found:
                        slot.places = []
                    slot.places.append((tables[0], name))
                    found[key] = slot
        self.slots = found
        self.trained = [slot for slot in found.values() if slot.values.requires_grad]
        self.numbers = list(self._differing())

    def _modules(self) -> Iterator[list[nn.Module]]:
        modules = [list(s.modules()) for s in self.strategies]
        if any([type(m) for m in ms] != [type(m) for m in modules[0]] for ms in modules):
            raise Apart("their modules differ")
        return map(list, zip(*modules, strict=True))

    def _differing(self) -> Iterator[Slot]:
        """Yield what the lanes hold besides parameters and buffers and is not the same for all."""
        for modules in self._modules():
            tables = [vars(m) for m in modules]
            for name in tables[0].keys() - OWN:
                yield from numbers(name, [table.get(name) for table in tables], tables[0])
        infos = [vars(s.info) for s in self.strategies]
        for name in ("seen", "task_classes"):
            yield from numbers(name, [info[name] for info in infos], infos[0])

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take a step of every lane; return the losses, (L,), detached.

        Raises:
            Apart: it cannot be done, and nothing has changed.
        """
        if self.exact and not all(aligned(batch.x) for batch in batches):
            raise OtherBits("samples are of a size whose batches are not aligned in memory")
        losses = self._try(batches)
        gradients = [
            [None] * len(batches) if slot.values.grad is None else slot.values.grad.unbind()
            for slot in self.trained
        ]
        for i, (learner, loss) in enumerate(zip(self.learners, losses.unbind(), strict=True)):
            own = [slot.own[i] for slot in self.trained]
            given = [parts[i] for parts in gradients]
            if self.plain:
                for parameter, gradient in zip(own, given, strict=True):
                    parameter.grad = gradient
                learner.optimizer.step()
            else:
                learner.minimise(_Known.apply(loss, given, *own))
        return losses

    def _try(self, batches: Sequence[Batch]) -> Tensor:
        """Compute losses and gradients; compare them with separate ones if the shape is new."""
        shape = shape_of(batches[0])
        tables = [slot for slot in self.slots.values() if slot.places[0][1] in STATISTICS]
        statistics = [(slot.values, slot.values.clone()) for slot in tables]
        try:
            if self.compared[shape] >= COMPARED:
                return self._backward(batches)
            with ExitStack() as rewound:
                for strategy in self.strategies:
                    rewound.enter_context(strategy.info.rng.rewound())
                separate = [self._separate(i, batch) for i, batch in enumerate(batches)]
            for values, before in statistics:
                values.copy_(before)
            losses = self._backward(batches)
            self._compare(losses, separate)
        except Exception as error:
            for values, before in statistics:
                values.copy_(before)
            if isinstance(error, Apart):
                raise
            draws = "randomness" in str(error)
            raise Apart("the loss draws random numbers" if draws else one_line(error)) from error
        self.compared[shape] += 1
        return losses

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        """Put the gradients of the lanes' losses into the stacked parameters; return the losses."""
        for slot in self.trained:
            slot.values.grad = None
        losses = self._losses(batches)
        losses.sum().backward()
        return losses.detach()

    def _losses(self, batches: Sequence[Batch]) -> Tensor:
        """Return the losses (L,) of a batch for each lane."""
        tensors = {name: _column([getattr(b, name) for b in batches]) for name in FIELDS}
        given = {name: value for name, value in tensors.items() if value is not None}
        extra = {name: torch.stack([b.extra[name] for b in batches]) for name in batches[0].extra}
        slots = [*self.slots.values(), *self.numbers]
        places = [(table, name) for slot in slots for table, name in slot.places]
        before = [table[name] for table, name in places]
        nothing: Any = dict.fromkeys(FIELDS)
        frame = replace(batches[0], **nothing, extra={})
        learner = self.learners[0]

        def loss(values: list[Tensor], given: dict[str, Any], extra: dict[str, Tensor]) -> Any:
            for slot, value in zip(slots, values, strict=True):
                for table, name in slot.places:
                    table[name] = value
            return learner.loss(replace(frame, **given, extra=extra))

        try:
            with Stacked():
                losses: Tensor = vmap(loss)([slot.values for slot in slots], given, extra)
                return losses
        finally:
            for (table, name), value in zip(places, before, strict=True):
                table[name] = value

    def _separate(self, i: int, batch: Batch) -> list[Tensor | None]:
        """Return the loss of a lane, and its gradients, without the others."""
        own = [slot.own[i] for slot in self.trained]
        loss = self.learners[i].loss(batch)
        return [loss.detach(), *torch.autograd.grad(loss, own, allow_unused=True)]

    def _compare(self, losses: Tensor, separate: Sequence[Sequence[Tensor | None]]) -> None:
        for i, (loss, *gradients) in enumerate(separate):
            assert loss is not None
            if not torch.allclose(losses[i], loss, rtol=CLOSE, equal_nan=True):
                raise OtherBits("their losses differ from separate ones")
            for slot, gradient in zip(self.trained, gradients, strict=True):
                stacked = slot.values.grad
                if stacked is None or gradient is None:
                    same = stacked is None and gradient is None
                elif self.exact:
                    same = torch.equal(stacked[i], gradient)
                else:
                    same = bool((stacked[i] - gradient).norm() <= CLOSE * gradient.norm())
                if not same:
                    kind = "bits" if self.exact else "numbers"
                    raise OtherBits(f"their gradients have other {kind} than separate ones")

    def release(self) -> None:
        """Give each lane tensors of its own again."""
        for slot in self.slots.values():
            if slot.holds:
                for tensor, view in zip(slot.own, slot.values.detach(), strict=True):
                    tensor.data, tensor.grad = view.clone(), None


def shape_of(batch: Batch) -> tuple[Any, ...]:
    """Return what decides the arithmetic of a step on a batch."""
    return batch.x.shape, batch.replayed, batch.epoch > 0


def _column(values: Sequence[Tensor | None]) -> Tensor | None:
    """Stack a value of every lane's batch, (L, B, ...)."""
    if all(v is None for v in values):
        return None
    present = [v for v in values if v is not None]
    if len(present) < len(values) or len({v.shape for v in present}) > 1:
        raise Apart("their batches have other sizes")
    return torch.stack(present)


class _Known(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *_: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.gradients)
