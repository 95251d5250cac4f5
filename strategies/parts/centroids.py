"""Recognition of experiences: an input belongs to that of the nearest centroid."""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import normalize


class Centroids(nn.Module):
    """The centroids of every experience among the features of a frozen model.

    Source: Wang et al. 2022, "S-Prompts Learning with Pre-trained Transformers", section 3: K-means
    on each experience, then the nearest centroid of all; here by Euclidean distance between
    normalised features. The state has room for all experiences from the start.

    Args:
        n_experiences: of the stream.
        width: of a feature.
        k: centroids per experience.
    """

    def __init__(
        self, n_experiences: int, width: int, k: int = 5, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.means = nn.Buffer(torch.zeros(n_experiences, k, width, device=device))
        self.known = nn.Buffer(torch.zeros(n_experiences, dtype=torch.bool, device=device))

    def add(self, index: int, features: Tensor) -> None:
        """Learn the centroids of the experience of an index from features (N, width).

        With fewer samples than centroids, each sample is one, and some of them count twice.
        """
        k = self.means.shape[1]
        points = normalize(features.float(), dim=1).double().cpu().numpy()
        # One thread and one seed: the same centroids in every run.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than k
            fitted = KMeans(min(k, len(points)), n_init=10, random_state=0).fit(points)
        found = torch.from_numpy(fitted.cluster_centers_)
        self.means[index] = found[torch.arange(k) % len(found)].to(self.means)
        self.known[index] = True

    def nearest(self, features: Tensor) -> Tensor:
        """Return the indices (B,) of the experiences that features (B, width) are nearest to.

        Only experiences that were added are candidates; before the first one, the index is 0.
        """
        n_experiences, k, width = self.means.shape
        # With products of matrices, distances would depend on the size of the batch.
        distance = torch.cdist(
            normalize(features.float(), dim=1),
            self.means.view(-1, width),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        closest = distance.view(-1, n_experiences, k).amin(2)
        return closest.masked_fill(~self.known, torch.inf).argmin(1)
