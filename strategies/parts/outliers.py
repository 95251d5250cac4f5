"""Virtual outliers: points of a feature space that no known sample is near to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class OutlierSampler:
    """RNG points around the features of an experience and keeps those farthest from them.

    How far is the distance to the k-th nearest feature, or to the farthest of fewer.

    Args:
        boundary: samples at the boundary of a class around which points are drawn, at most.
        draws: points around each of them.
        kept: points that are kept for every class, at most.
        k: which neighbour's distance says how far away a point is.
        noise: standard deviation of the draws in every direction.
    """

    boundary: int
    draws: int
    kept: int
    k: int
    noise: float

    def at_boundary(self, features: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Outliers (M, D) of features (N, D) with classes (N,), class by class.

        Source: Tao et al. 2023, "Non-parametric Outlier Synthesis", section 3.1: the samples of a
        class that are farthest from its others are its boundary, and Gaussian noise around these is
        kept where it is farthest from all features.
        """
        parts = [self._around(features[y == c], features, generator) for c in y.unique()]
        return torch.cat(parts)

    def _around(self, own: Tensor, everything: Tensor, generator: torch.Generator) -> Tensor:
        found, distances = [], []
        for sample in self._boundary(own):
            points = sample + self._noise(own, generator)
            distances.append(distance(points, everything, self.k))
            found.append(points)
        n_kept = min(self.kept, len(found) * self.draws)
        return torch.cat(found)[torch.cat(distances).topk(n_kept).indices]

    def _boundary(self, own: Tensor) -> Tensor:
        """The samples (boundary, D) of a class, (N, D), whose k-th neighbour is farthest."""
        isolation = distance(own, own, self.k + 1)  # the nearest to a sample is itself
        return own[isolation.topk(min(self.boundary, len(own))).indices]

    def at_origin(self, features: Tensor, n_classes: int, generator: torch.Generator) -> Tensor:
        """Outliers (M, D) as the authors' code of OVOR draws them.

        There boundary samples are found and then not used: the same draws around the origin stand
        in for those around each of them, and the ones farthest from the normalised features are
        kept, as often as there are boundary samples.
        """
        points = self._noise(features, generator)
        far_first = distance(points, normalize(features, dim=1), self.k).argsort(descending=True)
        copies = points[far_first].repeat_interleave(min(self.boundary, len(features)), dim=0)
        return copies[: self.kept * n_classes]

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        shape = (self.draws, like.shape[1])
        return self.noise * torch.randn(shape, generator=generator, device=like.device)


def distance(points: Tensor, features: Tensor, k: int) -> Tensor:
    """From each of (P, D) to the k-th nearest of (N, D), or to the farthest if k > N; (P,)."""
    return torch.cdist(points, features).kthvalue(min(k, len(features)), dim=1).values
