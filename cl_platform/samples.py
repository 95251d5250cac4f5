"""Samples: rows of a data set that is kept once and shared by everything that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cl_platform.errors import BadInput
from cl_platform.identity import array_digest, digest


class Transform(Protocol):
    """A deterministic change of the raw inputs that makes a domain (permuted pixels, a rotation).

    `identity` names the transformation and its parameters; equal names must mean equal results.
    """

    @property
    def identity(self) -> str: ...

    def __call__(self, raw: Tensor) -> Tensor:
        """(B, ...) as stored -> (B, ...) of the same type."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of a data set that is kept once and shared: `source[index]` with labels `y`.

    Args:
        source: inputs of the whole data set, (N, ...) uint8 or float; may be memory-mapped.
        index: the rows that belong here, (n,) int64, in a fixed order.
        y: class indices of those rows, (n,) int64.
        fingerprint: a hash of `source` and of all its labels.
        transform: applied to the gathered rows.
        mapped: `source` lies in a memory-mapped file and is read as it is used.
    """

    source: Tensor
    index: Tensor
    y: Tensor
    fingerprint: str
    transform: Transform | None = None
    mapped: bool = False

    @classmethod
    def of(cls, x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Samples:
        """Samples that own their data: x (n, ...) uint8 or float, y (n,) integers."""
        x, y = torch.as_tensor(x), torch.as_tensor(y).long()
        if len(x) != len(y):
            raise BadInput(f"{len(x)} inputs with {len(y)} labels: give one label per input")
        return cls(x, torch.arange(len(y)), y, digest(array_digest(x), array_digest(y)))

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def identity(self) -> str:
        """A hash of which rows of which data these are, and of their transformation."""
        transform = self.transform.identity if self.transform else ""
        return digest(self.fingerprint, array_digest(self.index), array_digest(self.y), transform)

    @property
    def x(self) -> Tensor:
        """All inputs as stored, (n, ...); copies the rows."""
        return self.gather(torch.arange(len(self), device=self.index.device))

    def gather(self, rows: Tensor) -> Tensor:
        """The raw inputs of the given rows, (len(rows), ...), transformed."""
        raw = self.source.index_select(0, self.index[rows])
        return self.transform(raw) if self.transform else raw

    def select(self, rows: Tensor) -> Samples:
        """The samples at the given rows (int64) or where a mask (bool) is true."""
        return replace(self, index=self.index[rows], y=self.y[rows])

    def to(self, device: torch.device, moved: dict[int, Tensor]) -> Samples:
        """These samples on a device; `moved` holds sources moved before, so each moves once.

        Memory-mapped samples stay where they are: their batches move.
        """
        if self.mapped:
            return self
        key = id(self.source)
        if key not in moved:
            moved[key] = self.source.to(device)
        return replace(self, source=moved[key], index=self.index.to(device), y=self.y.to(device))

    @staticmethod
    def concat(parts: Sequence[Samples]) -> Samples:
        """The union of samples, in order; copies only where sources or transformations differ."""
        first = parts[0]
        index, y = torch.cat([p.index for p in parts]), torch.cat([p.y for p in parts])
        if all(p.source is first.source and p.transform is first.transform for p in parts):
            return replace(first, index=index, y=y)
        fingerprint = digest([p.identity for p in parts])
        x = torch.cat([p.x for p in parts])
        return Samples(x, torch.arange(len(y), device=y.device), y, fingerprint)
