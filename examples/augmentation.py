"""An augmentation of your own.

clp run --stream split-cifar10 --set "augmentation=[flip, {name: examples/augmentation.py:Erase}]"
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cl_platform import Augmentation


@dataclass
class Erase(Augmentation):
    """Blackens a square of each image, at a place of its own.

    Args:
        share: of the image's area.
    """

    share: float = 0.1

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        device = images.device

        def inside(size: int) -> Tensor:  # which of so many pixels are in the square, (n, size)
            length = round(self.share**0.5 * size)
            start = torch.randint(size - length + 1, (n, 1), generator=generator, device=device)
            place = torch.arange(size, device=device)
            return (place >= start) & (place < start + length)

        square = inside(height)[:, :, None] & inside(width)[:, None, :]
        return images.masked_fill(square[:, None], 0)
