"""Two views of every sample, for losses that compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cl_platform import Augmentation


@dataclass
class TwoViews(Augmentation):
    """Draws the whole augmentation of a run twice: ``batch.x`` and ``batch.x2``.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning" (SimCLR). Replayed
    samples have two views as well. A strategy that does not compare views learns from the first.
    """

    views: ClassVar[int] = 2

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images
