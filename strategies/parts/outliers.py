"""Virtual outliers: points of a feature space that are far from all samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class OutlierSampler:
    """Draws points around the features of an experience and keeps those farthest from them.

    The distance of a point is that to the k-th nearest feature, or to the farthest of fewer.

    Args:
        boundary: samples at the boundary of a class around which points are drawn, at most.
        draws: points around each of them.
        kept: points returned for every class, at most.
        k: the neighbour that distances are measured to.
        noise: standard deviation of the draws in every direction.
    """

    boundary: int
    draws: int
    kept: int
    k: int
    noise: float

    def at_boundary(self, features: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return outliers (M, D) of features (N, D) with classes (N,), class by class.

        Source: Tao et al. 2023, "Non-parametric Outlier Synthesis", section 3.1: the samples of a
        class that are farthest from its others are its boundary; of Gaussian noise around these,
        the points farthest from all features are kept.
        """
        outliers = []
        for c in y.unique():
            own = features[y == c]
            isolation = distance(own, own, self.k + 1)  # the nearest to a sample is itself
            boundary = own[isolation.topk(min(self.boundary, len(own))).indices]
            points = [sample + self._noise(own, generator) for sample in boundary]
            distances = torch.cat([distance(p, features, self.k) for p in points])
            n_kept = min(self.kept, len(distances))
            outliers.append(torch.cat(points)[distances.topk(n_kept).indices])
        return torch.cat(outliers)

    def at_origin(self, features: Tensor, n_classes: int, generator: torch.Generator) -> Tensor:
        """Return outliers (M, D) as drawn by the authors' code of OVOR.

        That code finds boundary samples but does not use them: the same draws around the origin
        replace those around each of them, and the ones farthest from the normalised features are
        kept, once for each boundary sample.
        """
        points = self._noise(features, generator)
        far_first = distance(points, normalize(features, dim=1), self.k).argsort(descending=True)
        copies = points[far_first].repeat_interleave(min(self.boundary, len(features)), dim=0)
        return copies[: self.kept * n_classes]

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        shape = (self.draws, like.shape[1])
        return self.noise * torch.randn(shape, generator=generator, device=like.device)


def distance(points: Tensor, features: Tensor, k: int) -> Tensor:
    """Return the distance (P,) of points (P, D) to the k-th nearest of (N, D), at most the N-th."""
    return torch.cdist(points, features).kthvalue(min(k, len(features)), dim=1).values
