"""Models: ``Model(input_shape, n_classes, **parameters)``, `features` and a linear `classifier`.

The output has one logit per class of the whole stream from the start; masks decide what is scored.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from cl_platform.core.preprocess import Preprocess
from cl_platform.models.precision import in_float32

Norm = Literal["batch", "group"]


class Classifier(nn.Module):
    """A feature extractor and a linear classifier on top of it.

    Subclasses set ``classifier`` (features -> n_classes) and implement :meth:`features`. One
    that reads weights has a static method ``fingerprint(**parameters)``, which hashes all
    weights that it reads, so that states made from others are not taken for its own.

    Attributes:
        pretrained: whether its features are the same whatever the seed, so that a frozen one can be
            shared and its features cached; a static method of its parameters where these decide.
        preprocess: what its weights were trained with, in units of pixels from 0 to 255; its mean
            and std then replace those of the stream. A static method likewise.
    """

    pretrained: ClassVar[bool] = False
    preprocess: ClassVar[Preprocess | None] = None
    classifier: nn.Linear

    @property
    def title(self) -> str:
        """Return what messages call it."""
        return type(self).__name__

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return what the classifier sees of inputs (B, *input_shape), (B, n_features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) for inputs (B, *input_shape)."""
        return in_float32(self.classifier, self.features(x))


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Build batch norm, or group norm with groups of at most 32 (its statistics are per sample)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = next(g for g in range(min(32, channels // 2) or 1, 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)
