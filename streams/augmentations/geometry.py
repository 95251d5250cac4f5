"""Where pixels go: shifts, reflections, crops of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from cl_platform import Augmentation
from cl_platform.errors import BadInput
from streams.augmentations.draws import integers, like, uniform


@dataclass
class Crop(Augmentation):
    """Shifts each image by up to `padding` pixels in both directions; zeros come in at the border.

    Source: the crop of padded images of He et al. 2016, "Deep Residual Learning", Section 4.2.

    Args:
        padding: the largest shift in pixels.
    """

    padding: NonNegativeInt = 4

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        device, shifts = images.device, 2 * self.padding + 1
        rows = torch.arange(height, device=device) + integers(shifts, (n, 1), generator)
        columns = torch.arange(width, device=device) + integers(shifts, (n, 1), generator)
        padded = pad(images, (self.padding,) * 4)
        image = torch.arange(n, device=device)[:, None, None]
        # Indices around the channel slice put the channels last.
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass
class Flip(Augmentation):
    """Mirrors each image left to right with a probability.

    Args:
        probability: of a reflection.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        mirrored = uniform(0, 1, (len(images), 1, 1, 1), generator) < self.probability
        return torch.where(mirrored, images.flip(3), images)


@dataclass
class RandomResizedCrop(Augmentation):
    """Cuts a box of random area and shape out of each image and stretches it to the full size.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", Section 6, as in torchvision;
    a box that does not fit is cut off at the border (there it is drawn anew up to ten times).
    Bilinear, between the centres of pixels.

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width over height, drawn uniformly in its logarithm.
    """

    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high or (name == "scale" and high > 1):
                raise BadInput(f"random-resized-crop {name}={low, high}: give smaller, larger")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        area = uniform(*self.scale, (n,), generator)
        low, high = (math.log(r) for r in self.ratio)
        ratio = uniform(low, high, (n,), generator).exp() * height / width
        wide = (area * ratio).sqrt().clamp(max=1)  # as shares of the image's sides
        tall = (area / ratio).sqrt().clamp(max=1)
        # Centres in [-1, 1], the units of the grid, such that boxes stay inside.
        across = uniform(-1, 1, (n,), generator) * (1 - wide)
        down = uniform(-1, 1, (n,), generator) * (1 - tall)
        zero = torch.zeros_like(wide)
        boxes = torch.stack([wide, zero, across, zero, tall, down], 1).view(n, 2, 3)
        grid = affine_grid(boxes, list(images.shape), align_corners=False)
        found = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return like(images, found)
