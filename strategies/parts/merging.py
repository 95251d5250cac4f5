"""Merging weights: what becomes of several sets of them, as tensors in the same order.

A task vector is what training has added to the initial weights: weights - initial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Tensors = list[Tensor]

NEARLY_PARALLEL = 0.9995  # cosines from which on an arc is taken for straight


def interpolate(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Return (1 - weight) a + weight b; at 0 and 1 it is a and b to the bit."""
    return torch.lerp(a, b, weight)


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Return the point on the arc from a to b, both seen as vectors (Shoemake 1985).

    Where they are (nearly) parallel, or one is zero, it is on the straight line.
    """
    cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    arc = ((1 - weight) * angle).sin() / sine * a + (weight * angle).sin() / sine * b
    return torch.where(cosine.abs() <= NEARLY_PARALLEL, arc, torch.lerp(a, b, weight))


PAIRS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "interpolation": interpolate,
    "ema": interpolate,
    "slerp": slerp,
}


class Rule:
    """A merge of any number of task vectors that takes one at a time.

    All it remembers is in its sums, whose size does not depend on the number of vectors.
    """

    weight: ClassVar[float] = 1.0
    """The factor on the merged vector as published."""

    def start(self, like: Sequence[Tensor]) -> list[Tensors]:
        """Return the sums of no vector, for tensors of these shapes."""
        return [[torch.zeros_like(t) for t in like]]

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        """Return the sums with one more vector; changes nothing."""
        return [_plus(sums[0], vector)]

    def merged(self, sums: list[Tensors], n: int) -> Tensors:
        """Return the merge of the n vectors that were added."""
        return sums[0]


class TaskArithmetic(Rule):
    """The sum (Ilharco et al. 2023, "Editing Models with Task Arithmetic")."""

    weight = 0.3


@dataclass
class DARE(TaskArithmetic):
    """The sum of vectors of which a share `drop` is dropped at random, the rest being scaled up
    (Yu et al. 2024, "Language Models are Super Mario")."""

    drop: float
    generator: torch.Generator

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        kept = 1 - self.drop
        masks = [torch.empty_like(v).bernoulli_(kept, generator=self.generator) for v in vector]
        return super().add(sums, [v * m / kept for v, m in zip(vector, masks, strict=True)])


@dataclass
class Breadcrumbs(Rule):
    """The sum of vectors without their largest entries and without the small ones (Davari &
    Belilovsky 2024, "Model Breadcrumbs").

    Of the weights of each output, a share `outliers` of the largest is dropped, and a share `keep`
    of the next is kept, at least one. In the authors' code that is each row along the last
    dimension, which is the same for matrices; in a 3x3 convolution that would be 3 numbers.
    """

    weight = 0.4
    keep: float
    outliers: float

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        return super().add(sums, [self.masked(v) for v in vector])

    def masked(self, vector: Tensor) -> Tensor:
        rows = vector.flatten(1) if vector.dim() > 1 else vector.reshape(1, -1)
        first = round(self.outliers * rows.shape[1])
        chosen = rows.abs().argsort(dim=1, descending=True, stable=True)[:, first:]
        chosen = chosen[:, : max(1, round(self.keep * rows.shape[1]))]
        kept = torch.zeros_like(rows).scatter(1, chosen, rows.gather(1, chosen))
        return kept.reshape(vector.shape)


class MagMax(Rule):
    """Of each weight the entry of the largest magnitude (Marczak et al. 2024, "MagMax")."""

    weight = 0.5

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        pairs = zip(vector, sums[0], strict=True)
        return [[torch.where(v.abs() > largest.abs(), v, largest) for v, largest in pairs]]


@dataclass
class TIES(Rule):
    """The mean of the entries that agree with the sign of their sum, after all but the largest
    of each vector were set to zero (Yadav et al. 2023, "TIES-Merging").

    Args:
        keep: the share of a vector's entries, by magnitude, that is kept.
    """

    keep: float

    def start(self, like: Sequence[Tensor]) -> list[Tensors]:
        # Sums and numbers of the positive entries, and of the negative ones.
        return [[torch.zeros_like(t) for t in like] for _ in range(4)]

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        sizes = torch.cat([v.abs().flatten() for v in vector])
        kept = max(1, round(self.keep * len(sizes)))
        least = sizes.kthvalue(len(sizes) - kept + 1).values
        trimmed = [torch.where(v.abs() >= least, v, 0.0) for v in vector]
        signed = [[v.clamp(min=0) for v in trimmed], [v.clamp(max=0) for v in trimmed]]
        counts = [[(v != 0).to(v.dtype) for v in part] for part in signed]
        new = (signed[0], counts[0], signed[1], counts[1])
        return [_plus(a, b) for a, b in zip(sums, new, strict=True)]

    def merged(self, sums: list[Tensors], n: int) -> Tensors:
        return [
            torch.where(up + down > 0, up / n_up.clamp(min=1), down / n_down.clamp(min=1))
            * (up + down != 0)
            for up, n_up, down, n_down in zip(*sums, strict=True)
        ]


class ModelStock(Rule):
    """The mean, shortened by how far the vectors differ (Jang et al. 2024, "Model Stock").

    Its factor on n vectors is n cos / (1 + (n - 1) cos), with the mean cosine between two of them
    in each tensor; 1 for a single vector.
    """

    def start(self, like: Sequence[Tensor]) -> list[Tensors]:
        return [[torch.zeros_like(t) for t in like] for _ in range(2)]

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        directions = [v / v.norm().clamp(min=1e-30) for v in vector]
        return [_plus(sums[0], vector), _plus(sums[1], directions)]

    def merged(self, sums: list[Tensors], n: int) -> Tensors:
        pairs = zip(*sums, strict=True)
        return [total / n * self.ratio(directions, n) for total, directions in pairs]

    def ratio(self, directions: Tensor, n: int) -> Tensor:
        """Return the factor, by the sum of the n vectors' directions."""
        if n == 1:
            return torch.ones_like(directions.sum())
        cosine = ((directions.square().sum() - n) / (n * (n - 1))).clamp(0, 1)
        return n * cosine / (1 + (n - 1) * cosine)


class MetaGPT(Rule):
    """The mean weighted by the squared lengths (Zhou et al. 2024, "MetaGPT")."""

    def start(self, like: Sequence[Tensor]) -> list[Tensors]:
        return [[torch.zeros_like(t) for t in like], [torch.zeros_like(like[0].sum())]]

    def add(self, sums: list[Tensors], vector: Tensors) -> list[Tensors]:
        square = torch.stack([v.square().sum() for v in vector]).sum()
        return [_plus(sums[0], [square * v for v in vector]), _plus(sums[1], [square])]

    def merged(self, sums: list[Tensors], n: int) -> Tensors:
        return [total / sums[1][0].clamp(min=1e-30) for total in sums[0]]


def layer_weights(names: Sequence[str], weight: float, growth: float) -> list[float]:
    """Return the factor of each tensor: weight in the first layer, + growth in the last.

    Source: Wang et al. 2025, "LiNeS": weight + growth l / (L - 1) in layer l of L.

    Args:
        names: of the tensors, from the input on; what is before the last dot is the layer.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    step = growth / max(1, len(layers) - 1)
    return [weight + step * layers.index(name.rpartition(".")[0]) for name in names]


def _plus(a: Tensors, b: Tensors) -> Tensors:
    return list(torch._foreach_add(a, b))
