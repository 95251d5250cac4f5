"""Strategies on stacked weights: loss and gradient of all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from cl_platform.core.batch import Batch
from cl_platform.core.strategy import Strategy
from cl_platform.engine.lanes.layers import Stacked, aligned, room
from cl_platform.errors import one_line

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # which a loss may change
# What modules may hold without a difference to the loss.
OWN = {*vars(nn.Module()), "info", "optimizer", "given"}
FIELDS = ("x", "y", "task", "raw", "features", "target", "x2", "rows")
COMPARED = 3  # steps on batches of a shape; the first may have gradients of zero
CLOSE = 1e-4  # of losses and gradients, relative to their length, where bits are not asked for


class Apart(Exception):
    """Lanes cannot take a step side by side; says why, in a few words, and nothing has changed."""


class OtherBits(Apart):
    """For batches of this shape, gradients are not those of separate steps."""


@dataclass(eq=False)
class Slot:
    """A tensor of all lanes.

    Args:
        values: (L, ...).
        own: that of each lane, a view of `values`.
        places: where the loss of the first lane finds its own.
    """

    values: Tensor
    own: list[Any]
    places: list[tuple[dict[str, Any], str]]

    @property
    def holds(self) -> bool:
        """Return whether the lanes' tensors still lie in the stack."""
        views = zip(self.own, self.values.detach(), strict=True)
        return self.values.requires_grad == self.own[0].requires_grad and all(
            t.data_ptr() == v.data_ptr() and t.shape == v.shape for t, v in views
        )


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
                for name, tensors in _rows(tables):
                    if all(t is tensors[0] for t in tensors) and not _trained(tensors[0]):
                        continue  # a frozen one that all share
                    key = tuple(map(id, tensors))
                    slot = found.get(key) or self.slots.get(key)
                    if slot is None or not slot.holds:
                        slot = _stacked(name, tensors)
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
        holders = [(vars(m) for m in modules) for modules in self._modules()]
        for tables in [*map(list, holders)]:
            for name in tables[0].keys() - OWN:
                values = [table.get(name) for table in tables]
                if slot := _number(name, values, tables[0]):
                    yield slot
        infos = [vars(s.info) for s in self.strategies]
        for name in ("seen", "task_classes"):
            if slot := _number(name, [info[name] for info in infos], infos[0]):
                yield slot

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
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _losses(self, batches: Sequence[Batch]) -> Tensor:
        """Return the losses (L,) of a batch for each lane."""
        tensors = {name: _column([getattr(b, name) for b in batches]) for name in FIELDS}
        given = {name: value for name, value in tensors.items() if value is not None}
        extra = {name: _column([b.extra[name] for b in batches]) for name in batches[0].extra}
        slots = [*self.slots.values(), *self.numbers]
        places = [(table, name) for slot in slots for table, name in slot.places]
        before = [table[name] for table, name in places]
        nothing = replace(batches[0], **dict.fromkeys(FIELDS), extra={})
        learner = self.learners[0]

        def loss(values: list[Tensor], given: dict[str, Tensor], extra: dict[str, Tensor]) -> Any:
            for slot, value in zip(slots, values, strict=True):
                for table, name in slot.places:
                    table[name] = value
            return learner.loss(replace(nothing, **given, extra=extra))

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


def _rows(tables: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the entries of tables of tensors by name, those that are there."""
    if any(table.keys() != tables[0].keys() for table in tables):
        raise Apart("their parameters differ")
    for name in tables[0]:
        row = [table[name] for table in tables]
        if any(t is not None for t in row):
            yield name, row


def _trained(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.requires_grad


def _stacked(name: str, tensors: Sequence[Any]) -> Slot:
    """Stack tensors, and make them views of the stack."""
    kinds = {(t.shape, t.dtype, t.requires_grad) if t is not None else None for t in tensors}
    if len(kinds) > 1 or len({id(t) for t in tensors}) < len(tensors):
        raise Apart(f"{name!r} has other shapes")
    values = room(tensors[0].detach(), len(tensors), *tensors[0].shape)
    for tensor, view in zip(tensors, values.unbind(), strict=True):
        view.copy_(tensor.detach())
        tensor.data = view
    return Slot(values.requires_grad_(tensors[0].requires_grad), list(tensors), [])


def _number(name: str, values: Sequence[Any], table: dict[str, Any]) -> Slot | None:
    """Return the stacked numbers of an attribute that is not the same in all lanes.

    Raises:
        Apart: it differs in more than numbers.
    """
    if all(_same(value, values[0]) for value in values):
        return None
    if all(isinstance(v, Tensor) for v in values) and len({v.shape for v in values}) == 1:
        return Slot(torch.stack([v.detach() for v in values]), list(values), [(table, name)])
    if all(type(value) is float for value in values):
        return Slot(torch.tensor(values), list(values), [(table, name)])
    raise Apart(f"{name}={values[0]!r:.40} is not the same for all")


def _same(a: Any, b: Any) -> bool:
    """Return whether two attributes are equal; objects that do not say so count as equal."""
    if a is b or type(a) is not type(b):
        return a is b
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    plain = (bool, int, float, complex, str, bytes, set, frozenset)
    return bool(a == b) if isinstance(a, plain) else True


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
