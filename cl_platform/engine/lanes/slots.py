"""What strategies hold, as stacked tensors: parameters, buffers, and numbers that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_platform.engine.lanes.layers import room


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
    places: list[tuple[Any, Any]]

    @property
    def holds(self) -> bool:
        """Return whether the lanes' tensors still lie in the stack."""
        views = zip(self.own, self.values.detach(), strict=True)
        return self.values.requires_grad == self.own[0].requires_grad and all(
            t.data_ptr() == v.data_ptr() and t.shape == v.shape for t, v in views
        )


def rows(tables: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the entries of tables of tensors by name, those that are there."""
    if any(table.keys() != tables[0].keys() for table in tables):
        raise Apart("their parameters differ")
    for name in tables[0]:
        row = [table[name] for table in tables]
        if any(t is not None for t in row):
            yield name, row


def is_trained(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.requires_grad


def stacked(name: str, tensors: Sequence[Any]) -> Slot:
    """Stack tensors, and make them views of the stack."""
    kinds = {(t.shape, t.dtype, t.requires_grad) if t is not None else None for t in tensors}
    if len(kinds) > 1 or len({id(t) for t in tensors}) < len(tensors):
        raise Apart(f"{name!r} has other shapes")
    values = room(tensors[0].detach(), len(tensors), *tensors[0].shape)
    for tensor, view in zip(tensors, values.unbind(), strict=True):
        view.copy_(tensor.detach())
        tensor.data = view
    return Slot(values.requires_grad_(tensors[0].requires_grad), list(tensors), [])


def numbers(name: Any, values: Sequence[Any], table: Any) -> Iterator[Slot]:
    """Yield the numbers of an attribute that are not the same in all lanes, stacked.

    Args:
        table: what holds the first lane's, under the name.

    Raises:
        Apart: it differs in more than numbers.
    """
    first = values[0]
    if all(_same(value, first) for value in values):
        return
    if all(isinstance(v, Tensor) for v in values) and len({v.shape for v in values}) == 1:
        yield Slot(torch.stack([v.detach() for v in values]), list(values), [(table, name)])
    elif all(type(value) is float for value in values):
        yield Slot(torch.tensor(values), list(values), [(table, name)])
    elif all(type(v) is list and len(v) == len(first) for v in values):
        for i in range(len(first)):
            yield from numbers(i, [v[i] for v in values], first)
    elif all(type(v) is dict and v.keys() == first.keys() for v in values):
        for key in first:
            yield from numbers(key, [v[key] for v in values], first)
    else:
        raise Apart(f"{name}={first!r:.40} is not the same for all")


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
