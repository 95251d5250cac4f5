"""A mini-batch, and the cross-entropy of its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import one_hot

CACHE_BYTES = 2**20  # of inputs that are made at a time on a CPU
_NOTHING: Mapping[str, Tensor] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """A mini-batch on the run's device.

    Args:
        x: inputs as the model sees them (augmented, normalised), (B, ...) float32.
        y: class indices, (B,) int64.
        task: task labels, (B,) int64, in the task scenario; None where the label is hidden.
        raw: the inputs as stored (uint8 for images), (B, ...): what a memory keeps.
        extra: further values that a memory stores with each sample, by name, each (B, ...).
        features: the frozen model's features, (B, D), where the kernel has them cached; see
            :attr:`Strategy.takes_features`.
        epoch: which pass over the experience's data it belongs to, from 0; with a pacing, how many
            whole passes had as many samples as were shown before its epoch.
        target: a distribution over classes for each sample, (B, n_classes), where `x` is mixed of
            several samples (mixup, CutMix); `y` and `raw` are of the first of them. Else None.
        x2: the same samples under a second, independent draw of the augmentation, (B, ...); only
            with ``two-views`` in the run's augmentation.
        replayed: how many of the samples, the last ones, were drawn from a memory.
        rows: of the memory that new samples go to (its size stands for none) and replayed ones
            come from, (B,) int64; see :meth:`ReplayBuffer.replay`.
    """

    x: Tensor
    y: Tensor
    task: Tensor | None
    raw: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    epoch: int = 0
    target: Tensor | None = None
    x2: Tensor | None = None
    replayed: int = 0
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Return the samples at the given rows."""
        optional = (self.task, self.features, self.target, self.x2, self.rows)
        task, features, target, x2, places = [v if v is None else v[rows] for v in optional]
        extra = {name: value[rows] for name, value in self.extra.items()}
        parts = (self.x[rows], self.y[rows], task, self.raw[rows], extra, features)
        return Batch(*parts, self.epoch, target, x2, 0, places)

    @property
    def new(self) -> Batch:
        """The samples of the experience, without those from a memory."""
        return self[: len(self) - self.replayed] if self.replayed else self

    @property
    def old(self) -> Batch:
        """The samples from a memory."""
        return self[len(self) - self.replayed :]

    def split(self, sizes: Sequence[int]) -> list[Batch]:
        """Return consecutive parts of the given sizes, as views."""
        sizes = list(sizes)

        def parts(values: Tensor | None) -> Sequence[Any]:
            return [None] * len(sizes) if values is None else values.split(sizes)

        extra = {name: parts(values) for name, values in self.extra.items()}
        fields = (self.x, self.y, self.task, self.raw, self.features, self.target, self.x2)
        each = zip(*map(parts, fields), parts(self.rows), strict=True)
        return [
            Batch(x, y, task, raw, {n: e[i] for n, e in extra.items()}, f, self.epoch, t, x2, 0, r)
            for i, (x, y, task, raw, f, t, x2, r) in enumerate(each)
        ]


def together(batches: Sequence[Batch]) -> Batch:
    """Return one batch of all samples, in order; what not all of them have is left out.

    If some are mixed, the others have targets of one class.
    """
    targets = [batch.target for batch in batches]
    mixed = next((t for t in targets if t is not None), None)
    if mixed is not None:
        n, dtype = mixed.shape[1], mixed.dtype
        batches = [
            batch if t is not None else replace(batch, target=one_hot(batch.y, n).to(dtype))
            for batch, t in zip(batches, targets, strict=True)
        ]

    def all_of(name: str) -> Tensor | None:
        values = [getattr(batch, name) for batch in batches]
        return None if any(v is None for v in values) else torch.cat(values)

    x, y, raw = (torch.cat([getattr(b, n) for b in batches]) for n in ("x", "y", "raw"))
    task, features, target, x2, rows = map(all_of, ("task", "features", "target", "x2", "rows"))
    return Batch(x, y, task, raw, _NOTHING, features, batches[0].epoch, target, x2, 0, rows)


@dataclass(frozen=True, eq=False)
class Recalled:
    """Samples from a memory for the batches of a chunk.

    Args:
        raw, y, task, rows: of these samples, those for the first batch first; see `Batch`.
        counts: how many each batch gets.
        slots: the rows of the memory that the chunk's own samples went to, (B,).
        draws: how many draws a batch's samples are of, of equal size.
        plain: how many of those, the first ones, are never mixed (mixup).
    """

    raw: Tensor
    y: Tensor
    task: Tensor | None
    rows: Tensor
    counts: list[int]
    slots: Tensor
    draws: int = 1
    plain: int = 0


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive batches of one epoch as they are stored, neither augmented nor normalised yet.

    Args:
        raw, y, task, features, epoch: of all samples, see `Batch`.
        sizes: of the batches.
        views: gives `x` and `x2` of stored inputs, freshly augmented.
        mix: mixes the samples of a batch with each other, if the run does.
    """

    raw: Tensor
    y: Tensor
    task: Tensor | None
    sizes: list[int]
    views: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    features: Tensor | None = None
    epoch: int = 0
    mix: Callable[[Batch], Batch] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, i: int) -> Chunk:
        """Return a chunk of one of the batches alone, copied."""
        start = sum(self.sizes[:i])
        rows = torch.arange(start, start + self.sizes[i], device=self.y.device)

        def own(values: Tensor | None) -> Any:
            return None if values is None else values.index_select(0, rows)

        parts = {n: own(getattr(self, n)) for n in ("raw", "y", "task", "features")}
        return replace(self, sizes=[self.sizes[i]], **parts)

    def batches(self, old: Recalled | None = None) -> Iterator[Batch]:
        """Yield the batches, each followed by its samples from a memory if there are any.

        Inputs are made for a few batches at a time, so that they are still in a processor's cache
        when they are learned.
        """
        counts = old.counts if old else [0] * len(self.sizes)
        sizes = [size + count for size, count in zip(self.sizes, counts, strict=True)]

        def both(new: Tensor | None, from_memory: Tensor | None) -> list[Tensor]:
            if new is None:
                return []
            parts = new.split(self.sizes)
            if from_memory is None:
                return list(parts)
            return [p for pair in zip(parts, from_memory.split(counts), strict=True) for p in pair]

        def each(parts: list[Tensor]) -> Sequence[Any]:
            return torch.cat(parts).split(sizes) if parts else [None] * len(sizes)

        y = each(both(self.y, old.y if old else None))
        task = each(both(self.task, old.task if old else None))
        rows = each(both(old.slots, old.rows)) if old else [None] * len(sizes)
        features = each(both(None if old else self.features, None))
        raw, n = both(self.raw, old.raw if old else None), 2 if old else 1
        sample = 4 * max(1, self.raw[:1].numel())
        group = len(sizes)
        if self.raw.device.type == "cpu":
            group = max(1, CACHE_BYTES // (sample * max(sizes)))
        for first in range(0, len(sizes), group):
            part = slice(first, first + group)
            stored = torch.cat(raw[n * first : n * (first + group)])
            x, x2 = self.views(stored)
            seconds = [None] * len(sizes[part]) if x2 is None else x2.split(sizes[part])
            each_batch = zip(
                *(x.split(sizes[part]), stored.split(sizes[part]), seconds),
                *(values[part] for values in (y, task, features, counts, rows)),
                strict=True,
            )
            for one, own, second, label, known, feature, count, places in each_batch:
                more = (_NOTHING, feature, self.epoch, None, second, count, places)
                batch = Batch(one, label, known, own, *more)
                yield self._mixed(batch, old) if self.mix else batch

    def _mixed(self, batch: Batch, old: Recalled | None) -> Batch:
        """Mix new samples with each other, and those of each draw from a memory."""
        assert self.mix is not None
        if not (old and batch.replayed):
            return self.mix(batch)
        drawn = batch.old.split([batch.replayed // old.draws] * old.draws)
        parts = [self.mix(batch.new), *drawn[: old.plain], *map(self.mix, drawn[old.plain :])]
        return replace(together(parts), replayed=batch.replayed)


def cross_entropy(
    logits: Tensor,
    labels: Batch | Tensor,
    smoothing: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Return the cross-entropy of labels, the mean over samples or (B,).

    Without smoothing and mixed samples it is torch's, to the bit. Smoothing (Szegedy et al. 2016)
    spreads its share evenly over the classes that compete, those whose logit is not -inf; a part of
    a mixed target on a class that does not compete counts nothing.

    Args:
        logits: (B, n_classes).
        labels: a batch, with its target if its inputs are mixed, or class indices (B,).
        smoothing: the share of the even distribution, 0 to 1.
    """
    y, target = (labels, None) if isinstance(labels, Tensor) else (labels.y, labels.target)
    if not smoothing and target is None:
        return functional.cross_entropy(logits, y, reduction=reduction)
    chances = logits.float().log_softmax(1)
    competing = logits > -torch.inf
    finite = chances.masked_fill(~competing, 0.0)
    if target is None:
        loss = functional.nll_loss(chances, y, reduction="none")
    else:
        loss = -(target * finite).sum(1)
    if smoothing:
        even = -finite.sum(1) / competing.sum(1)
        loss = (1 - smoothing) * loss + smoothing * even
    return loss.mean() if reduction == "mean" else loss


def soft_labels(batch: Batch, competing: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the distributions that labels stand for, (B, n_classes): for losses by class.

    Args:
        competing: (n_classes,) bool, the classes that the smoothing is spread over.
        smoothing: the share of the even distribution, 0 to 1.
    """
    target = batch.target
    if target is None:
        target = one_hot(batch.y, len(competing)).float()
    if not smoothing:
        return target
    return (1 - smoothing) * target + smoothing * competing / competing.sum()
