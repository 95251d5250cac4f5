"""RandAugment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from streams.augmentations.colour import OfPixels
from streams.augmentations.draws import integers

BINS = 30  # the largest magnitude

Change = Callable[[Any, Tensor, float], Tensor]
"""(torchvision's functions, images, signed strength in [-1, 1]) -> images."""


def _shear(f: Any, images: Tensor, x: float, y: float) -> Tensor:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    changed: Tensor = f.affine(images, 0.0, [0, 0], 1.0, angles, center=[0, 0])
    return changed


def _shift(f: Any, images: Tensor, x: float, y: float) -> Tensor:
    height, width = images.shape[-2:]
    shift = [int(x * width), int(y * height)]
    changed: Tensor = f.affine(images, 0.0, shift, 1.0, [0.0, 0.0])
    return changed


CHANGES: dict[str, Change] = {
    "identity": lambda f, images, s: images,
    "shear-x": lambda f, images, s: _shear(f, images, 0.3 * s, 0.0),
    "shear-y": lambda f, images, s: _shear(f, images, 0.0, 0.3 * s),
    "translate-x": lambda f, images, s: _shift(f, images, 0.45 * s, 0.0),
    "translate-y": lambda f, images, s: _shift(f, images, 0.0, 0.45 * s),
    "rotate": lambda f, images, s: f.rotate(images, 30 * s),
    "brightness": lambda f, images, s: f.adjust_brightness(images, 1 + 0.9 * s),
    "colour": lambda f, images, s: f.adjust_saturation(images, 1 + 0.9 * s),
    "contrast": lambda f, images, s: f.adjust_contrast(images, 1 + 0.9 * s),
    "sharpness": lambda f, images, s: f.adjust_sharpness(images, 1 + 0.9 * s),
    "posterize": lambda f, images, s: f.posterize(images, 8 - round(4 * abs(s))),
    "solarize": lambda f, images, s: f.solarize(images, 255 * (1 - abs(s))) if s else images,
    "autocontrast": lambda f, images, s: f.autocontrast(images) if s else images,
    "equalize": lambda f, images, s: f.equalize(images) if s else images,
}


@dataclass
class RandAugment(OfPixels):
    """Applies a few changes to each image, drawn from fourteen, all of one strength.

    Source: Cubuk et al. 2020, "RandAugment: Practical Automated Data Augmentation with a Reduced
    Search Space"; the changes and their ranges are torchvision's, whose functions carry them out on
    all images at once that drew the same. Signs are drawn. At magnitude 0 nothing changes at all.
    On a GPU, the draws are waited for once per change and chunk of batches.

    Args:
        changes: of each image, one after the other (N).
        magnitude: strength of all of them, 0 to 30 (M).
    """

    changes: NonNegativeInt = 2
    magnitude: Annotated[int, Field(ge=0, le=BINS)] = 9

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        from torchvision.transforms.v2 import functional  # takes seconds to import

        strength = self.magnitude / BINS
        kinds = [(change, s) for change in CHANGES.values() for s in (strength, -strength)]
        for _ in range(self.changes):
            drawn = integers(len(kinds), (len(images),), generator).tolist()
            changed = images.clone()
            for kind in sorted({*drawn}):
                rows = [i for i, k in enumerate(drawn) if k == kind]
                change, signed = kinds[kind]
                changed[rows] = change(functional, images[rows], signed)
            images = changed
        return images
