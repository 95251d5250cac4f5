"""Replay memories: modules whose content is in their buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput, ContractError
from cl_platform.strategy import Batch
from cl_platform.stream import StreamInfo


class ReplayBuffer(nn.Module):
    """A memory of `size` samples: a uniform sample of everything added (reservoir sampling).

    Source: Vitter 1985, Algorithm R, on whole batches. Samples are kept as stored (uint8 for
    images) and augmented anew whenever they are drawn. Adding and drawing cost O(batch).

    Args:
        size: number of samples kept, at least 1.
        info: the stream's shapes, preprocessing and random generators.
        role: name of the memory's random generators; give each memory of a strategy its own.
        extra: shapes of further float values kept with each sample, by name (stored logits, say).
    """

    x: Tensor
    y: Tensor
    task: Tensor

    def __init__(
        self,
        size: int,
        info: StreamInfo,
        role: str = "replay",
        extra: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        if size < 1:
            raise BadInput(f"memory size {size} is too small: give at least 1")
        self.size = size
        self.seen = 0
        self._preprocess = info.preprocess
        self._has_task = info.scenario == "task"
        self._draws = info.draws.generator(f"{role}/select")
        self._augmentation_draws = info.draws.generator(f"{role}/augment")
        device = info.device
        # One row more than `size`: what is not kept is written there, without a branch.
        shape = (size + 1, *info.input_shape)
        self.register_buffer("x", torch.zeros(shape, dtype=info.input_dtype, device=device))
        self.register_buffer("y", torch.zeros(size + 1, dtype=torch.int64, device=device))
        self.register_buffer("task", torch.zeros(size + 1, dtype=torch.int64, device=device))
        self._extra = tuple(extra or {})
        for name, dimensions in (extra or {}).items():
            self.register_buffer(f"extra_{name}", torch.zeros(size + 1, *dimensions, device=device))

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, batch: Batch, **extra: Tensor) -> None:
        """Offer the samples of a batch to the memory, in order; `extra` is (B, ...) by name."""
        self._write(self._slots(batch), batch, extra)

    def sample(self, n: int) -> Batch:
        """`n` stored samples, drawn uniformly with replacement, freshly augmented."""
        return self.read(self._rows(n))

    def distinct(self, n: int) -> Batch:
        """`n` different stored samples, or all if there are fewer; O(size), unlike `sample`."""
        rows = self.rows()
        order = torch.randperm(len(rows), generator=self._draws, device=rows.device)
        return self.read(rows[order[:n]])

    def rows(self) -> Tensor:
        """The rows of all stored samples, (len(self),)."""
        return torch.arange(len(self), device=self.y.device)

    def read(self, rows: Tensor) -> Batch:
        """The stored samples at the given rows (n,), freshly augmented."""
        raw = self.x.index_select(0, rows)
        task = self.task.index_select(0, rows) if self._has_task else None
        x = self._preprocess(raw, self._augmentation_draws)
        extra = {n: self.get_buffer(f"extra_{n}").index_select(0, rows) for n in self._extra}
        return Batch(x, self.y.index_select(0, rows), task, raw, extra)

    def plain(self, rows: Tensor) -> Tensor:
        """The stored inputs at the given rows as the model sees them, without augmentation."""
        return self._preprocess(self.x.index_select(0, rows))

    def _write(self, slots: Tensor, batch: Batch, extra: Mapping[str, Tensor]) -> None:
        if set(extra) != set(self._extra):
            raise ContractError(
                f"the memory was given {sorted(extra)} with its samples; it keeps "
                f"{sorted(self._extra)}: name them in ReplayBuffer(extra=...)"
            )
        self.seen += len(batch)
        self.x.index_copy_(0, slots, batch.raw)
        self.y.index_copy_(0, slots, batch.y)
        if batch.task is not None:
            self.task.index_copy_(0, slots, batch.task)
        for name, value in extra.items():
            self.get_buffer(f"extra_{name}").index_copy_(0, slots, value.detach())

    def make_room(self, classes: tuple[int, ...]) -> None:
        """To be called with an experience's classes before it begins; a reservoir needs no more."""

    def _slots(self, batch: Batch) -> Tensor:
        """The row each sample goes to, (B,); `size` stands for nowhere."""
        n, device = len(batch), batch.y.device
        first, last = self.seen, self.seen + n
        if last <= self.size:
            return torch.arange(first, last, device=device)
        count = torch.arange(first + 1, last + 1, dtype=torch.float64, device=device)
        slots = self._uniform(n).mul_(count).long()  # of the i-th sample: uniform over 0..i-1
        if first < self.size:  # the memory fills up within this batch
            free = torch.arange(first, self.size, device=device)
            slots[: len(free)] = free
        return self._last_wins(slots.clamp_(max=self.size))

    def _rows(self, n: int) -> Tensor:
        return torch.randint(len(self), (n,), generator=self._draws, device=self.y.device)

    def _uniform(self, n: int) -> Tensor:
        """(n,) float64 in [0, 1); double, so that millions of places stay equally likely."""
        return torch.rand(n, dtype=torch.float64, generator=self._draws, device=self.y.device)

    def _spread(self, n: int, filled: Tensor, start: Tensor) -> Tensor:
        """`n` rows, uniformly from groups that fill `filled` (G,) rows from `start` (G,) on."""
        ends = filled.cumsum(0)
        draw = (self._uniform(n) * ends[-1]).long()
        g = torch.searchsorted(ends, draw, right=True)
        return start[g] + draw - (ends - filled)[g]

    def _last_wins(self, slots: Tensor) -> Tensor:
        """Of samples sent to the same row the last is kept: writing a row twice has no order."""
        overwritten = (slots[:, None] == slots).triu_(1).any(1)
        return slots.masked_fill(overwritten, self.size)

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = int(state["seen"])
