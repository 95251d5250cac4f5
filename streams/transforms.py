"""Transformations of images that make several domains of one data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True)
class PermutePixels:
    """The same permutation of the pixels for every image (Goodfellow et al. 2013)."""

    seed: int
    n_pixels: int

    @property
    def identity(self) -> str:
        return f"permute {self.seed} {self.n_pixels}"

    @cached_property
    def permutation(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(self.n_pixels, generator=generator)

    def __call__(self, raw: Tensor) -> Tensor:
        pixels = raw.flatten(2)
        return pixels.index_select(2, self.permutation.to(raw.device)).view_as(raw)


@dataclass(frozen=True)
class Rotate:
    """Every image turned counter-clockwise by the same angle, bilinear, zeros outside."""

    degrees: float

    @property
    def identity(self) -> str:
        return f"rotate {self.degrees!r}"

    def __call__(self, raw: Tensor) -> Tensor:
        angle = torch.tensor(self.degrees, device=raw.device).deg2rad()
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero]).view(1, 2, 3)
        # One grid for all images: they are transformed as the channels of a single one.
        grid = affine_grid(matrix, [1, 1, *raw.shape[2:]], align_corners=False)
        turned = grid_sample(raw.float().flatten(0, 1)[None], grid, align_corners=False)
        return turned.round().to(raw.dtype).view_as(raw)
