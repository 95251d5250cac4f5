"""Affinities that compare the features of two experiences, whatever their labels.

They are minus a divergence. All but ``kl`` are symmetric: they cannot tell which of two experiences
should come first.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from cl_platform import Stream
from streams.affinities.features import Featured
from streams.curricula.distances import Distance, distances

LEAST_VARIANCE = 1e-2  # of a feature, as a share of the mean over features


class Wasserstein(Featured):
    """Minus the distance between experiences: the squared 2-Wasserstein distance of their samples.

    Args:
        distance: ``ot``, exact and debiased (extra ``curricula``); or ``cosine``, ``euclidean``
            between mean features; see :func:`streams.curricula.distances.distances`.
    """

    distance: Distance = "ot"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        return -distances(self.items(stream), self.distance)


class _Pairs(Featured):
    """Minus a divergence of each pair of experiences."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        compared = self.compared(self.items(stream).features)
        return np.array([[-self.divergence(s, t) for t in compared] for s in compared])

    def compared(self, features: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """Return what is compared of each experience, from its (n, D) features."""
        return list(features)

    @abstractmethod
    def divergence(self, source: np.ndarray, target: np.ndarray) -> float:
        """Return how far a target is from a source."""


class MMD(_Pairs):
    """Minus the squared maximum mean discrepancy of a Gaussian kernel.

    Source: Gretton et al. 2012 (A Kernel Two-Sample Test), equation 5.

    Args:
        bandwidth: of the kernel; None takes the median distance between samples of the stream.
    """

    bandwidth: PositiveFloat | None = None

    def compared(self, features: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        from scipy.spatial.distance import pdist

        wide = float(np.median(pdist(np.concatenate(features)))) or 1.0
        scale = wide if self.bandwidth is None else self.bandwidth
        return [x / scale for x in features]

    def divergence(self, source: np.ndarray, target: np.ndarray) -> float:
        return mmd(source, target)


class JS(_Pairs):
    """Minus the Jensen-Shannon divergence of how often each word of a codebook is used.

    The words are the centres of clusters of the features of all experiences.

    Args:
        words: their number, at most.
    """

    words: PositiveInt = 32

    def compared(self, features: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        from sklearn.cluster import KMeans

        x = np.concatenate(features)
        k = min(self.words, len(np.unique(x, axis=0)))
        words = KMeans(k, n_init=1, random_state=0).fit(x).labels_
        parts = np.split(words, np.cumsum([len(f) for f in features])[:-1])
        return [np.bincount(part, minlength=k) / len(part) for part in parts]

    def divergence(self, source: np.ndarray, target: np.ndarray) -> float:
        return js(source, target)


class Bhattacharyya(JS):
    """Minus the Bhattacharyya distance of how often each word of a codebook is used."""

    def divergence(self, source: np.ndarray, target: np.ndarray) -> float:
        return bhattacharyya(source, target)


class KL(_Pairs):
    """Minus the divergence of the target's features from the source's, both taken as normal.

    It is directed: a wide source covers a narrow target, and not the other way round. Covariances
    are diagonal.

    Args:
        order: of the divergence; 1 is Kullback and Leibler's, less is Rényi's.
    """

    order: Annotated[float, Field(gt=0, le=1)] = 1.0

    def compared(self, features: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        least = LEAST_VARIANCE * np.concatenate(features).var(0).mean() or 1.0
        return [np.stack([x.mean(0), x.var(0) + least]) for x in features]

    def divergence(self, source: np.ndarray, target: np.ndarray) -> float:
        return normal_divergence(target, source, self.order)


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the biased squared MMD of samples, (n, D) and (m, D), with kernel exp(-d^2 / 2)."""
    from scipy.spatial.distance import cdist

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-cdist(a, b, "sqeuclidean") / 2).mean())

    return max(0.0, mean(x, x) + mean(y, y) - 2 * mean(x, y))


def js(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two distributions, in nats."""
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(p, q) ** 2)


def bhattacharyya(p: np.ndarray, q: np.ndarray) -> float:
    """Return -log sum sqrt(p q) of two distributions; that of disjoint ones is taken as -log 1e-9.

    Source: Bhattacharyya 1943.
    """
    return float(-np.log(np.clip(np.sqrt(p * q).sum(), 1e-9, 1)))


def normal_divergence(p: np.ndarray, q: np.ndarray, order: float = 1.0) -> float:
    """Return the Rényi divergence of p from q, for 0 < order <= 1; 1 gives KL(p || q), in nats.

    Source: Gil, Alajaji & Linder 2013 (Rényi divergence measures), table 2.

    Args:
        p, q: (2, D) means and variances of independent normal variables.
    """
    (m, v), (n, w) = p, q
    if order == 1:
        each = (np.log(w / v) + (v + (m - n) ** 2) / w - 1) / 2
    else:
        mixed = order * w + (1 - order) * v
        logs = (np.log(mixed) - order * np.log(w) - (1 - order) * np.log(v)) / (1 - order)
        each = (logs + order * (m - n) ** 2 / mixed) / 2
    return float(each.sum())
