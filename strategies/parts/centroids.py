"""Which experience is an input from? That of the nearest centroid."""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import normalize


class Centroids(nn.Module):
    """The centroids of every experience in the features of a frozen model.

    Source: Wang et al. 2022, "S-Prompts Learning with Pre-trained Transformers", section 3: K-means
    on each experience, then the nearest centroid of all; here by Euclidean distance between
    normalised features. State: room for all experiences from the start.

    Args:
        n_experiences, width: of the stream and of a feature.
        k: centroids of an experience.
    """

    def __init__(
        self, n_experiences: int, width: int, k: int = 5, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.means = nn.Buffer(torch.zeros(n_experiences, k, width, device=device))
        self.known = nn.Buffer(torch.zeros(n_experiences, dtype=torch.bool, device=device))

    def add(self, place: int, features: Tensor) -> None:
        """Learn the centroids of the experience at a place of the order from features (N, width).

        Of fewer samples than centroids, each is one, and some are there twice.
        """
        k = self.means.shape[1]
        found = _k_means(normalize(features.float(), dim=1), min(k, len(features)))
        self.means[place] = found[torch.arange(k) % len(found)].to(self.means)
        self.known[place] = True

    def nearest(self, features: Tensor) -> Tensor:
        """The places (B,) of the experiences that features (B, width) are nearest to.

        Only experiences that were added are candidates; before there is one, it is place 0.
        """
        n_experiences, k, width = self.means.shape
        # By products of matrices, what is near would depend on the size of the batch.
        distance = torch.cdist(
            normalize(features.float(), dim=1),
            self.means.view(-1, width),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        closest = distance.view(-1, n_experiences, k).amin(2)
        return closest.masked_fill(~self.known, torch.inf).argmin(1)


def _k_means(points: Tensor, k: int) -> Tensor:
    """The same k centres of (N, D) in every run: one thread, one seed."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than centres
        fitted = KMeans(k, n_init=10, random_state=0).fit(points.double().cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_)
