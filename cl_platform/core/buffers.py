"""Replay memories: modules whose whole content is in their buffers, by one policy each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cl_platform.core.batch import Batch, Chunk, Recalled
from cl_platform.core.samples import Samples
from cl_platform.core.stream import StreamInfo
from cl_platform.errors import BadInput, ContractError


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
        self._generator = info.rng.generator(f"{role}/select")
        self._augmentation = info.rng.generator(f"{role}/augment")
        self._mix = info.preprocess.mixer(info.n_classes, self._augmentation)
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

    def add(self, batch: Batch | Chunk, **extra: Tensor) -> None:
        """Offer the samples of a batch to the memory, in order; `extra` is (B, ...) by name."""
        self._check(extra)
        self._write(self._last_wins(self._slots(batch.y)), batch, extra)
        self.seen += len(batch)

    def add_all(self, data: Samples, task: int | None = None) -> None:
        """Offer all samples of an experience, in order; only what is kept is read."""
        self._check({})
        y = data.y.to(self.y.device)
        slots = self._last_wins(self._slots(y))
        rows = (slots < self.size).nonzero().squeeze(1)
        raw, y = data.gather(rows).to(y.device), y[rows]
        labels = None if task is None else torch.full_like(y, task)
        self._write(slots[rows], Batch(raw, y, labels, raw), {})
        self.seen += len(data)

    def replay(
        self,
        chunk: Chunk,
        samples: int | Sequence[int] | None = None,
        draws: int = 1,
        offer: bool = True,
        plain: int = 0,
    ) -> Iterator[Batch]:
        """Return a chunk's batches, each followed by samples drawn from the memory.

        It is ``sample`` and then ``add`` for one batch after the other, in a few operations for all
        of them: what a batch draws was in the memory before the batch was added. All of the chunk
        is in the memory at once. Extra values are neither read nor written, since they depend on
        the weights: see :meth:`stored` and :meth:`store`.

        Args:
            samples: drawn for each batch, each time, or for one batch after the other; None draws
                as many as the batch has.
            draws: how often.
            offer: add the batches; else the memory stays as it is.
            plain: how many of a batch's draws, the first ones, are never mixed; see :meth:`read`.

        Returns:
            Batches with `replayed` and `rows`; the first has no old samples if there are none.
        """
        device, sizes = chunk.y.device, chunk.sizes
        starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        filled, first_row = self._filled(chunk.y, starts, offer)
        empty = 0 if self.seen else min(1, len(sizes)) if offer else len(sizes)
        each = [samples] * len(sizes) if isinstance(samples, int) else samples or sizes
        counts = [0] * empty + [draws * n for n in each[empty:]]
        of = _part_of(counts, device)
        rows = self._spread(self._uniform(len(of)), filled[of], first_row)
        if not offer:
            return self.replay_rows(chunk, rows, counts, draws, plain)
        old = self._recalled(rows, counts, self._slots(chunk.y), draws, plain)
        old = self._with_added(old, chunk, torch.tensor(starts, device=device)[of])
        if self._extra:  # of a batch's samples; later batches may well write to the same rows
            old = replace(old, slots=self._last_wins(old.slots, _part_of(sizes, device)))
        return chunk.batches(old)

    def replay_rows(
        self, chunk: Chunk, rows: Tensor, counts: list[int], draws: int = 1, plain: int = 0
    ) -> Iterator[Batch]:
        """Return a chunk's batches, each followed by the samples at given rows; none is added.

        Args:
            rows: for all batches, those for the first one first.
            counts: how many each batch gets.
            draws, plain: see :meth:`replay`.
        """
        nowhere = torch.full_like(chunk.y, self.size)
        return chunk.batches(self._recalled(rows, counts, nowhere, draws, plain))

    def _recalled(
        self, rows: Tensor, counts: list[int], slots: Tensor, draws: int, plain: int
    ) -> Recalled:
        """Return what is stored at rows now."""
        raw, y, task = (t.index_select(0, rows) for t in (self.x, self.y, self.task))
        known = task if self._has_task else None
        return Recalled(raw, y, known, rows, counts, slots, draws, plain)

    def _with_added(self, old: Recalled, chunk: Chunk, before: Tensor) -> Recalled:
        """Store a chunk, and return what was recalled as it is when its first samples are there.

        Args:
            before: how many of the chunk's samples, for each recalled one.
        """
        sample, found = _latest(old.slots, old.rows, before)
        if found.device.type == "cpu":
            of_chunk = found.nonzero().squeeze(1)
            added = chunk.raw.index_select(0, sample.index_select(0, of_chunk))
            held, added = _words(old.raw, added)
            held.index_copy_(0, of_chunk, added)
            raw = old.raw
        else:  # without waiting to know which they are
            added, held = _words(chunk.raw.index_select(0, sample), old.raw)
            raw = torch.where(found[:, None], added, held).view(old.raw.dtype).view(old.raw.shape)
        y, task = torch.where(found, chunk.y[sample], old.y), old.task
        if task is not None and chunk.task is not None:
            task = torch.where(found, chunk.task[sample], task)
        self._write(self._last_wins(old.slots), chunk, {})
        self.seen += len(chunk)
        return replace(old, raw=raw, y=y, task=task)

    def stored(self, name: str, old: Batch) -> Tensor:
        """Return the extra values of that name of replayed samples, (n, ...)."""
        return self.get_buffer(f"extra_{name}").index_select(0, _rows_of(old))

    def store(self, new: Batch, **extra: Tensor) -> None:
        """Write the extra values (n, ...), by name, of new samples that `replay` has stored."""
        self._check(extra)
        self._write_extra(_rows_of(new), extra)

    def sample(self, n: int, mixing: bool = True) -> Batch:
        """Return `n` stored samples, drawn uniformly with replacement, freshly augmented.

        Args:
            mixing: see :meth:`read`.
        """
        return self.read(self._rows(n), mixing)

    def distinct(self, n: int) -> Batch:
        """Return `n` different stored samples, or all of fewer; O(size), unlike `sample`."""
        rows = self.rows()
        order = torch.randperm(len(rows), generator=self._generator, device=rows.device)
        return self.read(rows[order[:n]])

    def rows(self) -> Tensor:
        """Return the rows of all stored samples, (len(self),)."""
        return torch.arange(len(self), device=self.y.device)

    def read(self, rows: Tensor, mixing: bool = True) -> Batch:
        """Return the stored samples at the given rows (n,), freshly augmented.

        Args:
            mixing: let mixup and its like, if the run has them, mix the samples with each other;
                not where a loss compares what is stored with each sample.
        """
        raw = self.x.index_select(0, rows)
        task = self.task.index_select(0, rows) if self._has_task else None
        x, x2 = self._preprocess.views(raw, self._augmentation)
        extra = {n: self.get_buffer(f"extra_{n}").index_select(0, rows) for n in self._extra}
        batch = Batch(x, self.y.index_select(0, rows), task, raw, extra, x2=x2)
        return self._mix(batch) if self._mix and mixing else batch

    def plain(self, rows: Tensor) -> Tensor:
        """Return the stored inputs at the given rows as the model sees them, not augmented."""
        return self._preprocess(self.x.index_select(0, rows))

    def _check(self, extra: Mapping[str, Tensor]) -> None:
        if set(extra) != set(self._extra):
            raise ContractError(
                f"the memory received {sorted(extra)} with its samples; it stores "
                f"{sorted(self._extra)}: name them in ReplayBuffer(extra=...)"
            )

    def _write(self, slots: Tensor, batch: Batch | Chunk, extra: Mapping[str, Tensor]) -> None:
        stored, raw = _words(self.x, batch.raw)
        stored.index_copy_(0, slots, raw)
        self.y.index_copy_(0, slots, batch.y)
        if batch.task is not None:
            self.task.index_copy_(0, slots, batch.task)
        self._write_extra(slots, extra)

    def _write_extra(self, slots: Tensor, extra: Mapping[str, Tensor]) -> None:
        for name, value in extra.items():
            stored = self.get_buffer(f"extra_{name}")
            stored.index_copy_(0, slots, value.detach().to(stored.dtype))

    def make_room(self, classes: tuple[int, ...]) -> None:
        """Prepare for an experience's classes before it begins; a reservoir needs nothing."""

    def _slots(self, y: Tensor) -> Tensor:
        """Return the row that each sample of classes (B,) goes to, (B,); `size` stands for none.

        A row may be named several times: what comes later overwrites what came before.
        """
        n, device = len(y), y.device
        first, last = self.seen, self.seen + n
        if last <= self.size:
            return torch.arange(first, last, device=device)
        count = torch.arange(first + 1, last + 1, dtype=torch.float64, device=device)
        slots = self._uniform(n).mul_(count).long()  # of the i-th sample: uniform over 0..i-1
        if first < self.size:  # the memory fills up within this batch
            free = torch.arange(first, self.size, device=device)
            slots[: len(free)] = free
        return slots.clamp_(max=self.size)

    def _filled(self, y: Tensor, starts: Sequence[int], offer: bool) -> tuple[Tensor, Tensor]:
        """Return how many rows of each group hold a sample before samples are added.

        Args:
            y: classes of the samples (N,), which are added in order if there is an `offer`.
            starts: how many were added before, for each time that is asked for.

        Returns:
            (len(starts), groups) of rows, and the first row of each group, (groups,).
        """
        seen = [min(self.seen + offer * start, self.size) for start in starts]
        return torch.tensor(seen, device=y.device)[:, None], y.new_zeros(1)

    def _rows(self, n: int) -> Tensor:
        filled, start = self._filled(self.y[:0], [0], offer=False)
        return self._spread(self._uniform(n), filled.expand(n, -1), start)

    def _uniform(self, n: int) -> Tensor:
        """Draw (n,) float64 in [0, 1); double, so that millions of rows stay equally likely."""
        return torch.rand(n, dtype=torch.float64, generator=self._generator, device=self.y.device)

    def _spread(self, uniform: Tensor, filled: Tensor, start: Tensor) -> Tensor:
        """Return rows uniformly from groups, by uniform numbers (n,).

        Args:
            filled: rows that hold a sample, of each group, (n, G).
            start: the first row of each group, (G,).
        """
        ends = filled.cumsum(1)
        draw = (uniform * ends[:, -1]).long()
        if filled.shape[1] == 1:
            return start + draw
        g = torch.searchsorted(ends, draw[:, None], right=True)
        return start[g[:, 0]] + draw - (ends - filled).gather(1, g)[:, 0]

    def _last_wins(self, slots: Tensor, batch: Tensor | None = None) -> Tensor:
        """Keep the last of the samples sent to the same row: writing a row twice has no order.

        Args:
            batch: of each sample, (B,), if rows are written to for one batch after the other.
        """
        places = slots if batch is None else slots + batch * (self.size + 1)
        ordered, order = places.sort(stable=True)
        overwritten = torch.zeros_like(slots, dtype=torch.bool)
        overwritten.index_copy_(0, order[:-1], ordered[:-1] == ordered[1:])
        return slots.masked_fill(overwritten, self.size)

    def grow_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a smaller memory stores with its samples in this one's shapes.

        Values for classes that had not arrived when a sample was stored are inf.
        """
        grown = {}
        for name in (f"extra_{name}" for name in self._extra):
            values = state[name]
            grown[name] = torch.full_like(self.get_buffer(name), torch.inf)
            grown[name][tuple(map(slice, values.shape))] = values
        return grown

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = int(state["seen"])


def rank_within(groups: Tensor) -> Tensor:
    """Return how many samples before it share each sample's group, (B,); O(B log B)."""
    ordered, order = groups.sort(stable=True)
    rank = torch.arange(len(groups), device=groups.device)
    return torch.empty_like(rank).index_copy_(0, order, rank - torch.searchsorted(ordered, ordered))


def counts_before(counts: Tensor, groups: Tensor, starts: Sequence[int]) -> Tensor:
    """Return the samples of each group (G,) before samples of groups (N,) from `starts` on.

    Returns:
        (len(starts), G).
    """
    times = torch.tensor(starts, device=counts.device)
    before = torch.arange(len(groups), device=counts.device) < times[:, None]
    found = counts.expand(len(starts), -1).clone()
    return found.scatter_add_(1, groups.expand(len(starts), -1), before.long())


def _part_of(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Return which of consecutive parts of given sizes each element is in, (sum(sizes),)."""
    parts = torch.arange(len(sizes), device=device)
    return parts.repeat_interleave(torch.tensor(sizes, device=device), output_size=sum(sizes))


def _rows_of(batch: Batch) -> Tensor:
    if batch.rows is None:
        raise ContractError("these samples have no rows of a memory: prepare batches by its replay")
    return batch.rows


def _words(a: Tensor, b: Tensor) -> list[Tensor]:
    """Return two tensors (n, ...), the first a view, as rows of numbers of 8 bytes if they fit:
    single bytes are copied several times slower."""
    rows = [a.flatten(1), b.contiguous().flatten(1)]
    wide = all(
        row.shape[1] * row.element_size() % 8 == 0 and row.storage_offset() % 8 == 0 for row in rows
    )
    if wide and rows[0].is_contiguous() and rows[0].shape[1] and a.dtype == b.dtype:
        return [row.view(torch.int64) for row in rows]
    return rows


def _latest(slots: Tensor, rows: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the samples written to slots (N,) in turn a row holds at some time.

    Args:
        rows: that are read, (M,).
        before: how many samples were written before, (M,).

    Returns:
        Numbers of samples (M,), and whether there is one, (M,) bool. O((N + M) log N).
    """
    n = len(slots)
    written = (slots * n + torch.arange(n, device=slots.device)).sort().values
    place = torch.searchsorted(written, rows * n + before) - 1
    last = written[place.clamp(min=0)]
    return last % n, (place >= 0) & (last // n == rows)


class ClassBalancedBuffer(ReplayBuffer):
    """A memory that holds the same number of samples of every class seen, each a reservoir.

    Source: the quota of GDumb (Prabhu et al. 2020), with reservoir sampling inside a class. Call
    :meth:`make_room` when classes appear: the quota of the others shrinks by dropping random rows.
    """

    counts: Tensor
    start: Tensor

    def __init__(
        self,
        size: int,
        info: StreamInfo,
        role: str = "replay",
        extra: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(size, info, role, extra)
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
        present = [int(c) for c in torch.nonzero(self.start >= 0)]
        new = [c for c in classes if c not in present]
        if not new:
            return
        kept_with = [f"extra_{name}" for name in self._extra]
        quota, order = self.size // (len(present) + len(new)), sorted(present + new)
        sources, targets = [self.y.new_empty(0)], [self.y.new_empty(0)]
        for c in present:
            rows, first = self.rows_of(c), order.index(c) * quota
            kept = rows[self._permutation(len(rows))[:quota]]
            sources.append(kept)
            targets.append(torch.arange(first, first + len(kept), device=kept.device))
        source, target = torch.cat(sources), torch.cat(targets)
        for buffer in (self.x, self.y, self.task, *map(self.get_buffer, kept_with)):
            buffer[target] = buffer[source]
        self.quota = quota
        self.start[order] = torch.arange(len(order), device=self.start.device) * quota

    def rows(self) -> Tensor:
        return torch.cat([self.rows_of(int(c)) for c in torch.nonzero(self.start >= 0)])

    def rows_of(self, c: int) -> Tensor:
        """Return the rows of a class, (m,)."""
        first = int(self.start[c])
        filled = min(int(self.counts[c]), self.quota)
        return torch.arange(first, first + filled, device=self.y.device)

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._generator, device=self.y.device)

    def _slots(self, y: Tensor) -> Tensor:
        if not self.quota:
            raise ContractError("call make_room(experience.classes) in begin_experience")
        position = self.counts[y] + rank_within(y)
        chosen = self._uniform(len(y)).mul_(position + 1).long()
        within = torch.where(position < self.quota, position, chosen)
        self.counts.index_add_(0, y, torch.ones_like(y))
        return torch.where(within < self.quota, self.start[y] + within, self.size)

    def _filled(self, y: Tensor, starts: Sequence[int], offer: bool) -> tuple[Tensor, Tensor]:
        counts = counts_before(self.counts, y, starts if offer else [0] * len(starts))
        return counts.clamp(max=self.quota), self.start

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen, "quota": self.quota}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.quota = int(state["quota"])


class RingBuffer(ReplayBuffer):
    """A memory with a fixed share for every class or experience, which holds its latest samples.

    Source: the ring buffers of Lopez-Paz & Ranzato 2017 (per experience) and Chaudhry et al. 2019
    (per class). Call :meth:`make_room` at the beginning of every experience.

    Args:
        by: what has a share of its own.
    """

    counts: Tensor

    def __init__(
        self,
        size: int,
        info: StreamInfo,
        role: str = "replay",
        extra: Mapping[str, tuple[int, ...]] | None = None,
        by: Literal["class", "experience"] = "class",
    ) -> None:
        groups = info.n_classes if by == "class" else info.n_experiences
        if size < groups:
            what = "classes" if by == "class" else "experiences"
            raise BadInput(
                f"memory size {size} is smaller than the {groups} {what} that share it: give at "
                f"least {groups}"
            )
        super().__init__(size, info, role, extra)
        self.quota = size // groups
        self._by_class = by == "class"
        self._index = -1
        counts = torch.zeros(groups, dtype=torch.int64, device=info.device)
        self.register_buffer("counts", counts)  # samples seen, per group

    def __len__(self) -> int:
        return int(self.counts.clamp(max=self.quota).sum())

    def make_room(self, classes: tuple[int, ...], index: int | None = None) -> None:
        """Begin the share of an experience, or go on with that of an `index`."""
        self._index = self._index + 1 if index is None else index

    def group(self, g: int) -> Tensor:
        """Return the rows that group `g` (a class, or an index in the order) fills, (m,)."""
        filled = min(int(self.counts[g]), self.quota)
        return torch.arange(g * self.quota, g * self.quota + filled, device=self.y.device)

    def rows(self) -> Tensor:
        return torch.cat([self.group(g) for g in range(len(self.counts))])

    def _groups(self, y: Tensor) -> Tensor:
        return y if self._by_class else torch.full_like(y, self._index)

    def _slots(self, y: Tensor) -> Tensor:
        groups = self._groups(y)
        position = self.counts[groups] + rank_within(groups)
        self.counts.index_add_(0, groups, torch.ones_like(groups))
        return groups * self.quota + position % self.quota

    def _filled(self, y: Tensor, starts: Sequence[int], offer: bool) -> tuple[Tensor, Tensor]:
        starts = starts if offer else [0] * len(starts)
        counts = counts_before(self.counts, self._groups(y), starts)
        start = torch.arange(len(self.counts), device=self.counts.device) * self.quota
        return counts.clamp(max=self.quota), start

    def grow_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a memory with fewer groups as this one holds them.

        The shares become smaller: each group keeps its latest samples.
        """
        state = {**state, **super().grow_state({**state})}
        counts = state["counts"].to(self.counts.device)
        share = (len(state["y"]) - 1) // len(counts)
        kept = counts.clamp(max=min(share, self.quota))
        group = torch.arange(len(counts), device=counts.device).repeat_interleave(kept)
        number = counts[group] - 1 - rank_within(group)  # of a sample within its group
        source, target = group * share + number % share, group * self.quota + number % self.quota
        grown = dict(state)
        for name in ("x", "y", "task", *(f"extra_{name}" for name in self._extra)):
            values = state[name].to(source.device)[source]
            grown[name] = self.get_buffer(name).clone()
            grown[name][(target, *map(slice, values.shape[1:]))] = values
        grown["counts"] = self.counts.clone()
        grown["counts"][: len(counts)] = counts
        return grown

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen, "index": self._index}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._index = int(state["index"])


MemoryKind = Literal["reservoir", "balanced", "ring"]
"""How a memory of fixed size is shared out: see ReplayBuffer, ClassBalancedBuffer, RingBuffer."""
SHARED_BY_SAMPLES: tuple[MemoryKind, ...] = ("reservoir", "ring")
"""The policies that go by the samples alone, without a call to `make_room` for new classes."""


def make_memory(
    kind: MemoryKind,
    size: int,
    info: StreamInfo,
    extra: Mapping[str, tuple[int, ...]] | None = None,
) -> ReplayBuffer:
    """Return a replay memory by the name of its policy."""
    policies: dict[str, type[ReplayBuffer]] = {
        "reservoir": ReplayBuffer,
        "balanced": ClassBalancedBuffer,
        "ring": RingBuffer,
    }
    return policies[kind](size, info, extra=extra)
