"""Losses that shape features by their directions: contrastive, and towards fixed prototypes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def supervised_contrast(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, a scalar.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", Eq. 2: the mean over samples i of
    -1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t)), where P(i) are
    the others with the label of i. Samples without such others count nothing. With a label of its
    own for each sample and its second view it is the loss of SimCLR (Chen et al. 2020).

    Args:
        z: (n, width), each of unit length; the views of a sample one below the other in any order.
        labels: (n,).
        temperature: t.
    """
    alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similar = (z @ z.T / temperature).masked_fill(alone, -torch.inf)
    chances = similar.log_softmax(1).masked_fill(alone, 0.0)
    positive = (labels[:, None] == labels) & ~alone
    n = positive.sum(1)
    each = -(chances * positive).sum(1) / n.clamp(min=1)
    return each.sum() / (n > 0).sum().clamp(min=1)


def simplex(k: int, width: int, generator: torch.Generator) -> Tensor:
    """Return the vertices of a simplex (an equiangular tight frame), (k, width) of unit length.

    Source: Yang et al. 2023, "Neural Collapse Inspired Feature-Classifier Alignment for Few-Shot
    Class-Incremental Learning", Eq. 2: sqrt(k / (k - 1)) U (I - 11' / k), U (width, k) orthonormal
    by a QR decomposition of normal numbers. The cosine of any two is -1/(k - 1).

    Args:
        k: from 2 to `width`.
    """
    normal = torch.randn(width, k, generator=generator, device=generator.device)
    basis = torch.linalg.qr(normal.double()).Q
    vertices: Tensor = math.sqrt(k / (k - 1)) * (basis - basis.mean(1, keepdim=True))
    return vertices.T.float()


def dot_regression(cosines: Tensor) -> Tensor:
    """Return half the mean of (cosine - 1)^2, a scalar; Yang et al. 2023, Eq. 6.

    Args:
        cosines: of each feature and the prototype of its own class, (n,).
    """
    return (cosines - 1).square().mean() / 2
