"""The evidence of a target's labels given features of a source model: LogME and ESM-LogME."""

from __future__ import annotations

import numpy as np

from cl_platform import Stream
from cl_platform.metrics.evidence import Precisions, logme
from streams.affinities.features import Sourced, SourceModel


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
