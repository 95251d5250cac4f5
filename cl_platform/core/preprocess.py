"""From raw inputs to what a model sees: batched augmentation and normalisation on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from cl_platform.errors import BadInput

Augmentation = Literal["none", "crop", "crop-flip"]


@dataclass(frozen=True)
class Preprocess:
    """Random crop and flip (training only), then ``(x - mean) / std`` per channel.

    Args:
        mean, std: per channel, in the units of the raw inputs; None leaves inputs as they are.
        augmentation: ``crop`` shifts each image by up to `padding` pixels (zeros come in at the
            border), ``crop-flip`` also mirrors half of them left to right.
        padding: largest shift in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation = "none"
    padding: int = 4

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(float(v) for v in value))
        if not all(0 < std < math.inf for std in self.std or ()):
            raise BadInput(
                f"std {self.std}: give positive numbers, 1 for a channel that does not vary"
            )

    def __call__(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Turn stored inputs (B, C, H, W) or (B, D) into float32; token ids stay as they are.

        Grey images have three channels afterwards if there are three means.
        With a generator, the images are augmented (training); without one they are not.
        """
        if generator is not None and self.augmentation != "none":
            raw = self._augmented(raw, generator)
        if self.mean is None or self.std is None:
            return raw if holds_tokens(raw) else raw.float()
        if raw.is_floating_point():
            raw = raw.float()
        mean, scale = _constants(self.mean, self.std, raw.dim(), raw.device)
        return (raw - mean).mul_(scale)

    def _augmented(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Shift (and mirror) each image by its own draw, in one gather."""
        n, _, height, width = raw.shape
        device, pad = raw.device, self.padding

        def draw(high: int) -> Tensor:
            return torch.randint(high, (n, 1), generator=generator, device=device)

        rows = torch.arange(height, device=device) + draw(2 * pad + 1)
        columns = torch.arange(width, device=device).expand(n, width)
        if self.augmentation == "crop-flip":
            columns = torch.where(draw(2).bool(), columns.flip(1), columns)
        columns = columns + draw(2 * pad + 1)
        padded = torch.nn.functional.pad(raw, (pad, pad, pad, pad))
        image = torch.arange(n, device=device)[:, None, None]
        # Indices around the channel slice put the channels last.
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def holds_tokens(raw: Tensor) -> bool:
    """Return whether inputs are token ids: integers of another type than uint8, that of images."""
    return not raw.is_floating_point() and raw.dtype not in (torch.uint8, torch.bool)


@cache
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], dimensions: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return mean and 1/std as (1, C, 1, ...) tensors; made once, since replay needs
    them at every step."""
    shape = (1, -1) + (1,) * (dimensions - 2)
    means = torch.tensor(mean, device=device).view(shape)
    return means, 1 / torch.tensor(std, device=device).view(shape)
