"""LogME: how likely labels are, given features, under a linear model of unknown precision."""

from __future__ import annotations

import math

import numpy as np

STEPS, TOLERANCE, LEAST = 11, 1e-3, 1e-5


def logme(features: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    """Return the log evidence of labels given features, per sample, the mean over classes.

    Source: You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer
    Learning", Algorithm 1. A Bayesian linear regression of each class against the rest, whose
    precisions of weights and noise are found by a fixed point, from 1 on and in at most eleven
    steps, as in the authors' code.

    Args:
        features: (n, D) float.
        labels: (n,) from 0 to n_classes - 1.
    """
    u, s, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    targets = (labels[:, None] == np.arange(n_classes)).astype(np.float64)
    return float(np.mean([evidence(s**2, u.T @ y, float(y @ y), len(y)) for y in targets.T]))


def evidence(spectrum: np.ndarray, projected: np.ndarray, total: float, n: int) -> float:
    """Return the log evidence per sample of one target, at the fixed point of its precisions.

    Args:
        spectrum: squared singular values of the features, (k,).
        projected: the target along the left singular vectors, (k,).
        total: its sum of squares.
        n: number of samples.
    """
    along = projected**2
    outside = max(total - float(along.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(STEPS):
        ratio = alpha / beta
        effective = float((spectrum / (spectrum + ratio)).sum())
        weights = float((spectrum * along / (spectrum + ratio) ** 2).sum())
        residual = float((along * (ratio / (spectrum + ratio)) ** 2).sum()) + outside
        alpha, beta = effective / (weights + LEAST), (n - effective) / (residual + LEAST)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    # The density of the target: normal, of mean 0 and covariance F F^T / alpha + I / beta.
    variances = spectrum / alpha + 1 / beta
    fit = float((along / variances).sum()) + beta * outside
    scale = float(np.log(variances).sum()) - (n - len(variances)) * math.log(beta)
    return -(fit + scale + n * math.log(2 * math.pi)) / (2 * n)
