"""What augmentations share: draws from a generator on its own device, and the type of images."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw numbers in [low, high), float32."""
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return drawn.mul_(high - low).add_(low)


def integers(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw whole numbers 0..n-1."""
    return torch.randint(n, shape, generator=generator, device=generator.device)


def like(images: Tensor, values: Tensor) -> Tensor:
    """Return values as images of the type of `images`: rounded and cut off where it is uint8."""
    if images.dtype == torch.uint8:
        values = values.round().clamp(0, 255)
    return values.to(images.dtype)
