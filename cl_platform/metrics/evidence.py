"""The evidence of labels given features, by Bayesian linear regressions: LogME."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Precisions = Literal["best", "published"]
RATIOS = np.logspace(-8, 8, 321)  # of precisions that are tried, in units of the features' scale
STEPS, TOLERANCE, LEAST = 11, 1e-3, 1e-5  # of the published fixed point


def logme(features: np.ndarray, labels: np.ndarray, precisions: Precisions = "best") -> float:
    """Return the log evidence per sample of Bayesian linear regressions, averaged over classes.

    Source: You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer
    Learning", Algorithm 1. Each predicts one class against the rest, as 1 and 0. With the
    ``best`` precisions a factor on the features changes nothing.

    Args:
        features: (n, D).
        labels: (n,).
        precisions: ``best`` are those of the largest evidence; ``published`` those of the code's
            eleven steps from 1, which for few samples may end far from it.
    """
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    found = []
    for c in np.unique(labels):
        one = Regression(u, s, (labels == c).astype(np.float64))
        found.append(one.log_evidence(*(one.best() if precisions == "best" else one.published())))
    return float(np.mean(found)) / len(labels)


class Regression:
    """Bayesian linear regression of a target on features F = U S V.

    With precisions alpha of the weights and beta of the noise, the target is normal with mean 0 and
    covariance F F^T / alpha + I / beta.

    Args:
        u: (n, k) left singular vectors.
        s: (k,) singular values.
        target: (n,).
    """

    def __init__(self, u: np.ndarray, s: np.ndarray, target: np.ndarray) -> None:
        self.n, self.squares, self.along = len(target), s**2, (u.T @ target) ** 2
        self.outside = max(0.0, float(target @ target - self.along.sum()))

    def log_evidence(self, alpha: float, beta: float) -> float:
        """Return the log density of the target."""
        variances = self.squares / alpha + 1 / beta
        fit = float((self.along / variances).sum()) + beta * self.outside
        scale = float(np.log(variances).sum()) - (self.n - len(variances)) * math.log(beta)
        return -(fit + scale + self.n * math.log(2 * math.pi)) / 2

    def best(self) -> tuple[float, float]:
        """Return the precisions of the largest evidence: beta follows from their ratio."""
        from scipy.optimize import minimize_scalar

        tried = np.log((float(self.squares.mean()) or 1.0) * RATIOS)
        place = int(self._profile(tried).argmax())
        ends = tried[max(0, place - 1)], tried[min(len(tried) - 1, place + 1)]
        found = minimize_scalar(lambda at: -self._profile(at)[0], bounds=ends, method="bounded")
        ratio = math.exp(found.x)
        beta = self.n / float(self._residual(np.array([ratio]))[0])
        return ratio * beta, beta

    def _profile(self, log_ratios: np.ndarray) -> np.ndarray:
        """Return the largest log evidence, but for a constant, at (m,) logs of alpha / beta."""
        ratios = np.exp(np.atleast_1d(log_ratios))
        scale = np.log1p(self.squares / ratios[:, None]).sum(1)
        return np.asarray(-(self.n * np.log(self._residual(ratios)) + scale) / 2)

    def _residual(self, ratios: np.ndarray) -> np.ndarray:
        """Return n / beta for the best beta at each ratio, (m,)."""
        shrunk = ratios[:, None] / (self.squares + ratios[:, None])
        return np.asarray(np.maximum(self.outside + shrunk @ self.along, 1e-300))

    def published(self) -> tuple[float, float]:
        """Return the precisions that the published code ends with."""
        alpha = beta = 1.0
        for _ in range(STEPS):
            ratio = alpha / beta
            effective = float((self.squares / (self.squares + ratio)).sum())
            weights = float((self.squares * self.along / (self.squares + ratio) ** 2).sum())
            shrunk = ratio / (self.squares + ratio)
            alpha = effective / (weights + LEAST)
            beta = (self.n - effective) / (self.outside + float(self.along @ shrunk**2) + LEAST)
            if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
                break
        return alpha, beta
