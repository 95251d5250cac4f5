"""Affinities from features of the training data, and the source models that some of them need."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import PositiveInt

from cl_platform import Affinity, Stream
from cl_platform.config import registry
from cl_platform.config.signatures import as_section
from cl_platform.core.code_digest import code_digest
from cl_platform.errors import BadInput
from streams.curricula.distances import Items, items_of

DECAY = 1.0  # of a source model's weights: with few samples it would be sure of everything
MOST_STEPS = 200  # of L-BFGS


class Featured(Affinity):
    """An affinity from features of the training data.

    Args:
        encoder: maps inputs to features; see ``clp list encoders``.
        samples: number of samples of each experience.
    """

    encoder: str | Mapping[str, Any] = "pixels"
    samples: PositiveInt = 100

    def reads(self, stream: Stream) -> Any:
        return code_digest(registry.load("encoder", as_section(self.encoder)["name"]))

    def items(self, stream: Stream) -> Items:
        return items_of(stream, "experiences", self.encoder, self.samples)


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A network of one hidden layer on features, trained to tell the classes of its source."""

    network: Any
    mean: np.ndarray
    scale: np.ndarray

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Return features (n, D) as the network takes them: with those of the source's scale."""
        return np.asarray((x - self.mean) / self.scale)

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs of the hidden layer, (n, D) -> (n, H)."""
        weights, biases = self.network.coefs_[0], self.network.intercepts_[0]
        return np.asarray(np.maximum(self.scaled(x) @ weights + biases, 0))

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of the source's classes, (n, D) -> (n, classes)."""
        return np.asarray(self.network.predict_proba(self.scaled(x)))


class Sourced(Featured):
    """An affinity that asks a model of each source about each target.

    The model of a source has one hidden layer, on the features of its training data.

    Args:
        hidden: units of that layer.
    """

    hidden: PositiveInt = 64

    def models(self, items: Items, rng: np.random.Generator) -> Iterator[SourceModel]:
        """Train the model of each source.

        Raises:
            BadInput: an experience has a single class.
        """
        for name, x, y in zip(items.names, items.features, items.labels, strict=True):
            if len({*y.tolist()}) < 2:
                raise BadInput(
                    f"experience {name!r:.60} has a single class, and a source model tells classes "
                    "apart: give affinity mmd, kl or pairwise, or experiences of more classes"
                )
            yield _trained(x, y, self.hidden, int(rng.integers(2**32)))


def _trained(x: np.ndarray, y: np.ndarray, hidden: int, seed: int) -> SourceModel:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    scale = x.std(0)
    model = SourceModel(
        MLPClassifier(
            (hidden,), solver="lbfgs", alpha=DECAY, max_iter=MOST_STEPS, random_state=seed
        ),
        x.mean(0),
        np.where(scale > 1e-6 * max(1e-12, scale.max()), scale, 1),
    )
    # Threads that wait for each other take ten times as long beside a busy process.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early does no harm
        model.network.fit(model.scaled(x), y)
    return model
