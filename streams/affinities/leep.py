"""What the predictions of a source model tell of a target's labels: LEEP and NCE."""

from __future__ import annotations

import numpy as np

from cl_platform import Stream
from streams.affinities.features import Sourced


class LEEP(Sourced):
    """Log expected empirical prediction of the target's labels from the source's predictions.

    Source: Nguyen et al. 2020 (LEEP).
    """

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        items = self.items(stream)
        targets = list(zip(items.features, items.labels, strict=True))
        return np.array(
            [
                [self.score(model.probabilities(x), y) for x, y in targets]
                for model in self.models(items, rng)
            ]
        )

    def score(self, theta: np.ndarray, labels: np.ndarray) -> float:
        """Return the affinity of a source by its predictions of a target."""
        return leep(theta, labels)


class NCE(LEEP):
    """Minus the entropy of the target's labels, given the classes that the source model predicts.

    Source: Tran et al. 2019 (negative conditional entropy).
    """

    def score(self, theta: np.ndarray, labels: np.ndarray) -> float:
        return nce(theta.argmax(1), labels)


def leep(theta: np.ndarray, labels: np.ndarray) -> float:
    """Return LEEP: the mean log of sum_z P(y | z) theta_z(x), in nats, at most 0.

    Args:
        theta: (n, Z) probabilities that the source model gives its own classes.
        labels: (n,) of the target.
    """
    _, y = np.unique(labels, return_inverse=True)
    joint = np.eye(y.max() + 1)[y].T @ theta / len(y)  # (Y, Z)
    total = joint.sum(0)
    conditional = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
    return float(np.log((theta * conditional[y]).sum(1)).mean())


def nce(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return -H(labels | predicted classes), in nats: (n,), (n,) -> at most 0."""
    return leep(np.eye(predicted.max() + 1)[predicted], labels)
