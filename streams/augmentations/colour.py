"""Colours: brightness, contrast, saturation and hue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl_platform import Augmentation
from cl_platform.core.augmentation import described
from cl_platform.errors import BadInput
from streams.augmentations.draws import like, uniform

GREY = (0.299, 0.587, 0.114)  # of red, green and blue in luma: ITU-R BT.601


class OfPixels(Augmentation):
    """An augmentation that knows where black and white are: at 0 and 255, in uint8."""

    def check(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().check(shape, dtype)
        if dtype != torch.uint8 or shape[0] not in (1, 3):
            raise BadInput(
                "takes images of uint8 with 1 or 3 channels, the stream has "
                f"{described(shape, dtype)}"
            )


@dataclass
class ColourJitter(OfPixels):
    """Changes brightness, contrast, saturation and hue of each image, in this order.

    As torchvision's ``ColorJitter``, which draws the order as well. Factors are uniform in
    ``[1 - amount, 1 + amount]``, not below 0; grey images have neither saturation nor hue.

    Args:
        brightness: amount of the factor on all pixels.
        contrast: on the distance from the image's mean grey.
        saturation: on the distance from each pixel's grey.
        hue: largest turn of the colour circle, in turns: at most a half.
    """

    brightness: NonNegativeFloat = 0.4
    contrast: NonNegativeFloat = 0.4
    saturation: NonNegativeFloat = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        def factor(amount: float) -> Tensor:
            return uniform(max(0, 1 - amount), 1 + amount, (len(images), 1, 1, 1), generator)

        x = (images.float() * factor(self.brightness)).clamp_(0, 255)
        mean = grey(x).mean((1, 2, 3), keepdim=True)
        x = torch.lerp(mean, x, factor(self.contrast)).clamp_(0, 255)
        saturation, turn = factor(self.saturation), factor(self.hue) - 1
        if x.shape[1] == 3:
            x = torch.lerp(grey(x), x, saturation).clamp_(0, 255)
            x = turned(x, turn)
        return like(images, x)


def grey(images: Tensor) -> Tensor:
    """Return the grey of images (B, C, H, W), (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def turned(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images (B, 3, H, W) by turns (B, 1, 1, 1) in HSV; the unit is free."""
    value, most = images.max(1, keepdim=True)
    spread = value - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    # In sixths of a turn, from the colour that is strongest.
    by_channel = torch.cat([green - blue, blue - red, red - green], 1).gather(1, most)
    hue = by_channel / spread.clamp(min=1e-12) + 2 * most + 6 * turn
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    place = (offsets + hue) % 6
    return value - spread * torch.minimum(place, 4 - place).clamp(0, 1)
