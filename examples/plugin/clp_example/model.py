"""A linear classifier on random cosine features (Rahimi & Recht 2007)."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn


class WideLinear(nn.Module):
    """Random cosine features of the input, and a trained linear layer on them.

    Args:
        width: number of features.
        scale: of the random frequencies.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        width: PositiveInt = 128,
        scale: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        size = math.prod(input_shape)
        self.register_buffer("frequencies", scale * torch.randn(size, width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.cos(x.flatten(1) @ self.frequencies + self.phases))
