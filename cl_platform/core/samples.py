"""Samples: rows of a data set that is kept once and shared by everything that uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from cl_platform.core.digests import array_digest, digest
from cl_platform.errors import BadInput, ContractError

Reader = Callable[[Tensor], Tensor]
"""Gives values (n, ...) at row numbers (n,)."""


class Transform(Protocol):
    """A deterministic change of the raw inputs that makes a domain (permuted pixels, a rotation).

    `identity` names the transformation and its parameters; equal names must mean equal results.
    """

    @property
    def identity(self) -> str: ...

    def __call__(self, raw: Tensor) -> Tensor:
        """Change stored inputs (B, ...) into (B, ...) of the same type."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of a data set that is kept once and shared: `source[index]` with labels `y`.

    Args:
        source: inputs of the whole data set, (N, ...) uint8, float, or token ids in another integer
            type; may be memory-mapped.
        index: the rows that belong here, (n,) int64, in a fixed order.
        y: class indices of those rows, (n,) int64.
        fingerprint: a hash of `source` and of all its labels.
        transform: applied to the gathered rows.
        mapped: `source` lies in a memory-mapped file and is read as it is used.
        features: gives a frozen model's features (n, D) at some of `index`, where they are cached.
        read: gives the stored inputs at some of `index`, where `source` is empty; see :meth:`own`.
    """

    source: Tensor
    index: Tensor
    y: Tensor
    fingerprint: str
    transform: Transform | None = None
    mapped: bool = False
    features: Reader | None = None
    read: Reader | None = None

    @classmethod
    def of(cls, x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Samples:
        """Copy arrays into samples of their own: x (n, ...) as in `source`, y (n,) integers.

        Inputs of bool become uint8, those of float64 float32, as models read them.

        Raises:
            BadInput: these are no arrays, not as many labels as inputs, or labels are no integers.
        """
        try:
            x, given = torch.as_tensor(x).clone(), torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"these are no arrays of numbers ({error}); give tensors") from error
        if x.dim() < 2 or given.dim() != 1:
            raise BadInput(
                f"inputs of shape {tuple(x.shape)} with labels of shape {tuple(given.shape)}: "
                "expected (n, ...) and (n,)"
            )
        if len(x) != len(given):
            raise BadInput(f"{len(x)} inputs with {len(given)} labels: give one label per input")
        x = x.to({torch.bool: torch.uint8, torch.float64: torch.float32}.get(x.dtype, x.dtype))
        y = given.long().clone()
        if not torch.equal(y, given) or (y < 0).any():
            raise BadInput("labels must be integers from 0: give class indices")
        return cls(x, torch.arange(len(y)), y, digest(array_digest(x), array_digest(y)))

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def classes(self) -> set[int]:
        """The class indices that occur."""
        return set(torch.unique(self.y).tolist())

    def emptied(self) -> Samples:
        """Return no samples of the same kind, through which the data cannot be reached."""
        return replace(
            self,
            source=_nothing_like(self.source),  # a part of the tensor would lead to all of it
            index=_nothing_like(self.index),
            y=_nothing_like(self.y),
            features=None,
            read=None,
        )

    def own(self) -> Samples:
        """Return the same samples, through which no other row of the data set can be reached.

        Resident rows are copied, unless they are the whole source. Memory-mapped rows stay in their
        file and are read by a function that reads no others.
        """
        if self.read is not None:
            return self
        source, index = self.source, self.index
        everything = torch.arange(len(self), device=index.device)
        own = replace(
            self,
            index=everything,
            y=self.y.clone(),
            fingerprint=self.identity,
            features=_among(index, self.features),
        )
        if self.mapped:
            read = _among(index, partial(source.index_select, 0))
            return replace(own, source=_nothing_like(source), read=read)
        whole = source.untyped_storage().nbytes() == source.numel() * source.element_size()
        if whole and len(source) == len(self) and torch.equal(index, everything):
            return own
        return replace(own, source=source.index_select(0, index))

    @cached_property
    def identity(self) -> str:
        """A hash of which rows of which data these are, and of their transformation."""
        transform = self.transform.identity if self.transform else ""
        return digest(self.fingerprint, array_digest(self.index), array_digest(self.y), transform)

    @property
    def x(self) -> Tensor:
        """Return a copy of all inputs as stored, (n, ...)."""
        return self.gather(torch.arange(len(self), device=self.index.device))

    def gather(self, rows: Tensor) -> Tensor:
        """Return the raw inputs of the given rows, transformed, (len(rows), ...)."""
        rows = self.index[rows.to(self.index.device)]
        raw = self.source.index_select(0, rows) if self.read is None else self.read(rows)
        return self.transform(raw) if self.transform else raw

    def gather_features(self, rows: Tensor) -> Tensor | None:
        """Return the features of the given rows, (len(rows), D); None where there are none."""
        return self.features(self.index[rows.to(self.index.device)]) if self.features else None

    def select(self, rows: Tensor) -> Samples:
        """Return the samples at the given rows (int64) or where a mask (bool) is true."""
        return replace(self, index=self.index[rows], y=self.y[rows])

    def relabelled(self, labels: Tensor) -> Samples:
        """Return the same samples with `labels[c]` (int64) instead of class c."""
        return replace(self, y=labels.to(self.y.device)[self.y])

    def to(self, device: torch.device, moved: dict[int, Tensor]) -> Samples:
        """Return these samples on a device; `moved` holds sources moved before: each moves once.

        Memory-mapped samples stay where they are: their batches move.
        """
        if self.mapped or self.source.device == self.index.device == device:
            return self
        key = id(self.source)
        if key not in moved:
            moved[key] = self.source.to(device)
        there = replace(self, source=moved[key], index=self.index.to(device), y=self.y.to(device))
        vars(there)["identity"] = self.identity  # which is computed where it is cheap
        return there

    @staticmethod
    def concat(parts: Sequence[Samples]) -> Samples:
        """Return the union of samples, in order; copied only where their sources differ."""
        first = parts[0]
        index, y = torch.cat([p.index for p in parts]), torch.cat([p.y for p in parts])
        if all(p.source is first.source and p.transform is first.transform for p in parts):
            return replace(first, index=index, y=y, features=None)
        fingerprint = digest([p.identity for p in parts])
        x = torch.cat([p.x for p in parts])
        return Samples(x, torch.arange(len(y), device=y.device), y, fingerprint)


class SeenOnce:
    """Stands for the training data of an online stream: only their number is known.

    Args:
        n: number of samples.
        reader: name of the strategy that is not to read them.
    """

    def __init__(self, n: int, reader: str) -> None:
        self._n, self._reader = n, reader

    def __len__(self) -> int:
        return self._n

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what copying and pickling ask for
            raise AttributeError(name)
        raise ContractError(
            f"{self._reader} reads experience.train.{name}, but an online stream shows each sample "
            "once, in training_step: declare `needs_second_pass: ClassVar[bool] = True`, or give a "
            "stream that is not online"
        )


def _among(index: Tensor, read: Reader | None) -> Reader | None:
    """Return what reads at numbers 0..n-1 of the rows in `index` (n,), and at no others."""
    return (lambda rows: read(index[rows])) if read else None


def _nothing_like(values: Tensor) -> Tensor:
    """Return no rows of the same shape and type, in memory of their own."""
    return values.new_empty((0, *values.shape[1:]))
