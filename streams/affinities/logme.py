"""The evidence of a target's labels given features of a source model: LogME and ESM-LogME."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from cl_platform import Stream
from streams.affinities.features import Sourced, SourceModel

Precisions = Literal["best", "published"]
RATIOS = np.logspace(-8, 8, 321)  # of precisions that are tried, in units of the features' scale
STEPS, TOLERANCE, LEAST = 11, 1e-3, 1e-5  # of the published fixed point


class LogME(Sourced):
    """Log evidence of the target's labels, given the hidden layer of the source's model.

    Source: You et al. 2021 (LogME).

    Args:
        precisions: ``best`` are those of the largest evidence; ``published`` those of the code's
            eleven steps from 1, which for few samples end far from it for some pairs of
            experiences, by the scale of the features.
    """

    precisions: Precisions = "best"

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        items = self.items(stream)
        targets = list(zip(items.features, items.labels, strict=True))
        return np.array(
            [
                [logme(self.embedded(model, source, x), y, self.precisions) for x, y in targets]
                for model, source in zip(self.models(items, rng), items.features, strict=True)
            ]
        )

    def embedded(self, model: SourceModel, source: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return what the source's model makes of features of a target, (n, D) -> (n, H)."""
        return model.hidden(x)


class ESM(LogME):
    """LogME by an embedding-space map: a linear map of the features onto the source's hidden layer.

    Source: Schulte et al. 2024 (Less is More: Parameter-Efficient Selection of Intermediate
    Tasks). They fit the map by AdamW; here it is the ridge regression that this approaches.
    """

    def embedded(self, model: SourceModel, source: np.ndarray, x: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import Ridge

        fitted = Ridge(alpha=1.0).fit(model.scaled(source), model.hidden(source))
        return np.asarray(fitted.predict(model.scaled(x)))


def logme(features: np.ndarray, labels: np.ndarray, precisions: Precisions = "best") -> float:
    """Return the log evidence per sample of Bayesian linear regressions, averaged over classes.

    Each predicts one class against the rest, as 1 and 0. With the ``best`` precisions a factor on
    the features changes nothing.

    Args:
        features: (n, D).
        labels: (n,).
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
