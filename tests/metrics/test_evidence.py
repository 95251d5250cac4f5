"""LogME against a known value, and against the density that it is."""

from __future__ import annotations

import numpy as np
import pytest

from cl_platform.metrics.evidence import LEAST, STEPS, TOLERANCE, evidence, logme


def known() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5))
    noise = 0.3 * rng.normal(size=200)
    return features, (features @ [2, -1, 0, 0, 0.5] + noise > 0).astype(int)


def test_a_known_value_whatever_the_scale() -> None:
    features, labels = known()
    assert logme(features, labels, 2) == pytest.approx(-0.909106, abs=1e-6)
    assert logme(10 * features, labels, 2) == pytest.approx(-0.909106, abs=1e-4)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert logme(features, shuffled, 2) < -1


@pytest.mark.parametrize("n", [30, 4], ids=["more samples", "more features"])
def test_it_is_the_density_of_the_labels(n: int) -> None:
    """By the posterior of the weights and the whole covariance, at the same precisions."""
    rng = np.random.default_rng(2)
    features, y = rng.normal(size=(n, 6)), rng.integers(2, size=n).astype(float)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    alpha = beta = 1.0
    for _ in range(STEPS):
        before = alpha / beta
        precision = alpha * np.eye(6) + beta * features.T @ features
        weights = beta * np.linalg.solve(precision, features.T @ y)
        effective = 6 - alpha * np.trace(np.linalg.inv(precision))
        alpha = effective / (weights @ weights + LEAST)
        beta = (n - effective) / (np.sum((y - features @ weights) ** 2) + LEAST)
        if abs(alpha / beta - before) <= TOLERANCE * before:
            break
    covariance = features @ features.T / alpha + np.eye(n) / beta
    _, determinant = np.linalg.slogdet(2 * np.pi * covariance)
    density = -(y @ np.linalg.solve(covariance, y) + determinant) / 2
    assert evidence(s**2, u.T @ y, float(y @ y), n) == pytest.approx(density / n, abs=1e-9)
