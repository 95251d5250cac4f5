"""Mixtures of the samples of a batch, with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveFloat
from torch import Tensor

from cl_platform import Mixing
from cl_platform.core.augmentation import is_token_type
from cl_platform.errors import BadInput
from streams.augmentations.draws import uniform


@dataclass
class Mixup(Mixing):
    """Adds another sample of the batch to each, with weights that its target has as well.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization": each sample's own weight
    is drawn from Beta(alpha, alpha), and its partner by a permutation of the batch. (The authors'
    code draws one weight for a whole batch.) Takes vectors as well as images.

    Args:
        alpha: the smaller, the less is mixed.
    """

    alpha: PositiveFloat = 0.2

    def check(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if is_token_type(dtype):
            raise BadInput("mixes numbers, and token ids are none to add")

    def mix(
        self, inputs: list[Tensor], target: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        own, partner = drawn(len(target), self.alpha, generator)
        mixed = []
        for x in inputs:
            weight = own.view(-1, *(1,) * (x.dim() - 1))
            mixed.append(torch.lerp(x[partner], x, weight))
        return mixed, torch.lerp(target[partner], target, own[:, None])


@dataclass
class CutMix(Mixing):
    """Pastes a box of another image of the batch into each; targets have the shares of the area.

    Source: Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features": the box has the image's shape and a share of its area drawn from
    1 - Beta(alpha, alpha); its centre is uniform, and what is beyond the border is cut off.

    Args:
        alpha: 1, as in the paper, draws all shares alike.
    """

    alpha: PositiveFloat = 1.0

    def mix(
        self, inputs: list[Tensor], target: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        n, height, width = len(target), *inputs[0].shape[-2:]
        own, partner = drawn(n, self.alpha, generator)
        side = (1 - own).sqrt()  # of the box, as a share of the image's
        inside = [
            within(uniform(0, size, (n,), generator), (side * size).floor(), size)
            for size in (height, width)
        ]
        box = inside[0][:, :, None] & inside[1][:, None, :]
        share = box.float().mean((1, 2))[:, None]
        mixed = [torch.where(box[:, None], x[partner], x) for x in inputs]
        return mixed, torch.lerp(target, target[partner], share)


def drawn(n: int, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw each sample's own weight from Beta(alpha, alpha), and the row of its partner; (n,)."""
    device = generator.device
    concentration = torch.full((n, 2), float(alpha), device=device)
    weights = torch._sample_dirichlet(concentration, generator=generator)[:, 0]
    return weights, torch.randperm(n, generator=generator, device=device)


def within(centre: Tensor, length: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels are in intervals around centres (B,), (B, size) bool."""
    pixels = torch.arange(size, device=centre.device)
    start = (centre.floor() - (length / 2).floor())[:, None]
    return (pixels >= start) & (pixels < start + length[:, None])
