"""A mini-batch, and the cross-entropy of its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import one_hot


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
        epoch: which pass over the experience's data it belongs to, from 0.
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
        return self._with(lambda values: values[rows])

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

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values)

        extra = {name: change(values) for name, values in self.extra.items()}
        parts = (change(self.x), change(self.y), changed(self.task), change(self.raw), extra)
        more = (changed(self.target), changed(self.x2), 0, changed(self.rows))
        return Batch(*parts, changed(self.features), self.epoch, *more)


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
    optional = {n: all_of(n) for n in ("features", "target", "x2", "rows")}
    return Batch(x, y, all_of("task"), raw, epoch=batches[0].epoch, **optional)


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
