"""LogME against known values, and against the density that it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from cl_platform.metrics.evidence import Regression, logme


def regression_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5))
    signal = features @ np.array([2, -1, 0, 0, 0.5]) + 0.3 * rng.normal(size=200)
    labels = (signal > 0).astype(int)
    return features, labels, rng.permutation(labels)


def test_logme_of_known_data() -> None:
    features, labels, shuffled = regression_data()
    assert logme(features, labels) == pytest.approx(-0.909106, abs=1e-6)
    assert logme(features, labels, "published") == pytest.approx(-0.909106, abs=1e-6)
    assert logme(features, shuffled, "published") == pytest.approx(-1.060894, abs=1e-6)
    # The published steps stop short of the largest evidence where features tell nothing.
    assert logme(features, shuffled) == pytest.approx(-1.060894, abs=2e-4)
    assert logme(features, shuffled) > logme(features, shuffled, "published")


@pytest.mark.parametrize("factor", [10, 1e-3, 1e5])
def test_logme_does_not_depend_on_the_scale_of_features(factor: float) -> None:
    features, *targets = regression_data()
    for labels in targets:
        assert logme(factor * features, labels) == pytest.approx(logme(features, labels), abs=1e-9)


def brute_force(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    covariance = features @ features.T / alpha + np.eye(len(target)) / beta
    return float(multivariate_normal(np.zeros(len(target)), covariance).logpdf(target))


@pytest.mark.parametrize(("n", "d"), [(30, 5), (12, 20)])
def test_the_evidence_is_that_of_brute_force(n: int, d: int) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, d))
    target = (features[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(float)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    one = Regression(u, s, target)
    for alpha, beta in [(1, 1), (0.2, 30), (50, 3), one.best(), one.published()]:
        expected = brute_force(features, target, alpha, beta)
        assert one.log_evidence(alpha, beta) == pytest.approx(expected, rel=1e-9)


def test_the_best_precisions_are_the_best_of_a_free_search() -> None:
    features, labels, _ = regression_data()
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    one = Regression(u, s, labels.astype(float))
    found = minimize(lambda x: -one.log_evidence(*np.exp(x)), [0, 0], method="Nelder-Mead")
    assert one.log_evidence(*one.best()) == pytest.approx(-found.fun, abs=1e-6)
