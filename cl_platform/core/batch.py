"""A mini-batch, and the cross-entropy of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


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

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Return the samples at the given rows."""
        task = None if self.task is None else self.task[rows]
        extra = {name: value[rows] for name, value in self.extra.items()}
        features = None if self.features is None else self.features[rows]
        target = None if self.target is None else self.target[rows]
        x2 = None if self.x2 is None else self.x2[rows]
        parts = (self.x[rows], self.y[rows], task, self.raw[rows], extra, features)
        return Batch(*parts, self.epoch, target, x2)


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
        target = functional.one_hot(batch.y, len(competing)).float()
    if not smoothing:
        return target
    return (1 - smoothing) * target + smoothing * competing / competing.sum()
