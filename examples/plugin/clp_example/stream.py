"""Rings in the plane: a stream that is drawn, not read."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Samples, Stream, class_incremental


def rings(
    *, experiences: PositiveInt = 3, samples: PositiveInt = 40, data_seed: NonNegativeInt = 0
) -> Stream:
    """Draw classes that are rings around the origin, two to an experience.

    Args:
        samples: training samples of the first class; each class has four more than the one before.
        data_seed: of the drawing.
    """
    n = 2 * experiences
    draw = torch.Generator().manual_seed(data_seed)
    train = _ring_samples([samples + 4 * c for c in range(n)], draw)
    test = _ring_samples([samples] * n, draw)
    groups = [[2 * i, 2 * i + 1] for i in range(experiences)]
    names = [f"radius {c + 1}" for c in range(n)]
    return class_incremental("rings", groups, names, train, test)


def _ring_samples(sizes: list[int], draw: torch.Generator) -> Samples:
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    angle = 2 * math.pi * torch.rand(len(y), generator=draw)
    radius = y + 1 + 0.1 * torch.randn(len(y), generator=draw)
    return Samples.of(torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y)
