"""Replay memories: modules whose content is in their buffers."""

from __future__ import annotations

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
    """

    x: Tensor
    y: Tensor
    task: Tensor

    def __init__(self, size: int, info: StreamInfo, role: str = "replay") -> None:
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

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, batch: Batch) -> None:
        """Offer the samples of a batch to the memory, in order."""
        slots = self._slots(batch)
        self.seen += len(batch)
        self.x.index_copy_(0, slots, batch.raw)
        self.y.index_copy_(0, slots, batch.y)
        if batch.task is not None:
            self.task.index_copy_(0, slots, batch.task)

    def sample(self, n: int) -> Batch:
        """`n` stored samples, drawn uniformly with replacement, freshly augmented."""
        rows = self._rows(n)
        raw = self.x.index_select(0, rows)
        task = self.task.index_select(0, rows) if self._has_task else None
        x = self._preprocess(raw, self._augmentation_draws)
        return Batch(x, self.y.index_select(0, rows), task, raw)

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

    def _last_wins(self, slots: Tensor) -> Tensor:
        """Of samples sent to the same row the last is kept: writing a row twice has no order."""
        overwritten = (slots[:, None] == slots).triu_(1).any(1)
        return slots.masked_fill(overwritten, self.size)

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = int(state["seen"])


class ClassBalancedBuffer(ReplayBuffer):
    """A memory that holds the same number of samples of every class seen, each a reservoir.

    Source: the quota of GDumb (Prabhu et al. 2020), with reservoir sampling inside a class. Call
    :meth:`make_room` when classes appear: the quota of the others shrinks by dropping random rows.
    """

    counts: Tensor
    start: Tensor

    def __init__(self, size: int, info: StreamInfo, role: str = "replay") -> None:
        super().__init__(size, info, role)
        if size < info.n_classes:
            raise BadInput(
                f"memory size {size} is smaller than the {info.n_classes} classes to be balanced: "
                f"give at least {info.n_classes}"
            )
        nothing = torch.zeros(info.n_classes, dtype=torch.int64, device=info.device)
        self.register_buffer("counts", nothing.clone())  # samples seen, per class
        # First row of a class. That of a class without room is out of reach: adding to it raises.
        self.register_buffer("start", nothing - 2**40)
        self.quota = 0

    def __len__(self) -> int:
        return int(self.counts.clamp(max=self.quota).sum())

    def make_room(self, classes: tuple[int, ...]) -> None:
        """Give the classes that have no rows yet their share; O(size), once per experience."""
        known = [int(c) for c in torch.nonzero(self.start >= 0)]
        new = [c for c in classes if c not in known]
        if not new:
            return
        quota, order = self.size // (len(known) + len(new)), sorted(known + new)
        old = {c: self._class_rows(c) for c in known}
        kept = {c: rows[self._permutation(len(rows))[:quota]] for c, rows in old.items()}
        for buffer in (self.x, self.y, self.task):
            before = buffer.clone()
            for i, c in enumerate(order):
                if c in kept:
                    buffer[i * quota : i * quota + len(kept[c])] = before[kept[c]]
        self.quota = quota
        self.start[order] = torch.arange(len(order), device=self.start.device) * quota

    def _class_rows(self, c: int) -> Tensor:
        first = int(self.start[c])
        filled = min(int(self.counts[c]), self.quota)
        return torch.arange(first, first + filled, device=self.y.device)

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._draws, device=self.y.device)

    def _slots(self, batch: Batch) -> Tensor:
        if not self.quota:
            raise ContractError("call make_room(experience.classes) in begin_experience")
        earlier = (batch.y[:, None] == batch.y).tril(-1).sum(1)  # of the same class in this batch
        place = self.counts[batch.y] + earlier
        chosen = self._uniform(len(batch)).mul_(place + 1).long()
        within = torch.where(place < self.quota, place, chosen)
        slots = torch.where(within < self.quota, self.start[batch.y] + within, self.size)
        self.counts.index_add_(0, batch.y, torch.ones_like(batch.y))
        return self._last_wins(slots)

    def _rows(self, n: int) -> Tensor:
        filled = self.counts.clamp(max=self.quota).cumsum(0)
        draw = (self._uniform(n) * filled[-1]).long()
        c = torch.searchsorted(filled, draw, right=True)
        before = torch.where(c > 0, filled[c - 1], 0)
        return self.start[c] + draw - before

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen, "quota": self.quota}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.quota = int(state["quota"])
