"""Closed-form classifiers on frozen features: nearest class mean, streaming LDA and RanPAC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot, relu

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.config.registry import name_of
from cl_platform.errors import BadInput

Share = Annotated[float, Field(gt=0, le=1)]

RIDGES = tuple(10.0**k for k in range(-8, 9))


class Prototypes(Strategy):
    """A network that never changes, and sums over its features; subclasses turn them into logits.

    The network is the run's, as it is at the start: its features are random ones unless it is
    pretrained. Data are read once, when their experience ends, in stored order and without
    augmentation: epochs, batch size and optimizer change nothing (give ``--epochs 1``), and during
    an experience predictions are those from before it. Sums are in float64, so that the order of
    the experiences does not matter except for rounding. Classes without samples all have the lowest
    finite logit: they tie with each other and lose against any other class.
    """

    takes_features = True
    freezes_model = True
    needs_second_pass = True
    refuses = ("early_stopping", "pacing")  # epochs change nothing

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = info.frozen_model()
        if not hasattr(self.model, "features"):
            raise BadInput(
                f"{name_of('strategy', type(self))} needs a model with `features`; "
                f"{type(self.model).__name__} has none: add that method, or give --model mlp"
            )
        zeros = torch.zeros(1, *info.input_shape, dtype=info.input_dtype, device=info.device)
        features = self.model.features(info.preprocess(zeros))  # type: ignore[operator]
        self.prepare(features.shape[1])

    def prepare(self, width: int) -> None:
        """Make the buffers, for `width` features."""
        self.counts = self.zeros(self.info.n_classes)
        self.sums = self.zeros(self.info.n_classes, width)

    def zeros(self, *shape: int) -> nn.Buffer:
        return nn.Buffer(torch.zeros(shape, dtype=torch.float64, device=self.info.device))

    def training_step(self, batch: Batch) -> Tensor:
        """Do nothing: there is nothing to train."""
        return torch.zeros((), device=batch.y.device)

    def end_experience(self, experience: Experience) -> None:
        for batch in self.batches(experience):
            self.add(self.embed(self.seen(batch.x, batch.features)), batch.y)

    def seen(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return the network's features (B, n_features) of inputs; compute them unless given."""
        if features is None:
            features = self.model.features(x)  # type: ignore[operator]
        return features

    def add(self, features: Tensor, y: Tensor) -> None:
        """Add samples to the sums: features (B, width), classes (B,)."""
        members = one_hot(y, self.info.n_classes).double()
        self.counts.add_(members.sum(0))
        self.sums.add_(members.T @ features)

    def embed(self, features: Tensor) -> Tensor:
        """Map the network's features (B, n_features) to those of the sums, (B, width) float64."""
        return features.double()

    @property
    def means(self) -> Tensor:
        """Return the mean of each class, (n_classes, width); zeros for one without samples."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Map features (B, width) to the logits of all classes, (B, n_classes)."""

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Return float64 logits (B, n_classes), the lowest number for classes without samples."""
        scores = self.scores(self.embed(self.seen(x, features)))
        lowest = torch.finfo(scores.dtype).min
        return self.restrict(scores.masked_fill(self.counts == 0, lowest), task)


class NearestClassMean(Prototypes):
    """The class whose mean is nearest, in the features of a frozen network.

    Source: Mensink et al. 2013, "Distance-Based Image Classification: Generalizing to New Classes
    at Near-Zero Cost", without the learned metric; the rule of Rebuffi et al. 2017 (iCaRL,
    Algorithm 1) with the means of all samples instead of exemplars.

    Args:
        metric: logits are minus the squared distance to the mean, or the cosine between both.
    """

    metric: Literal["euclidean", "cosine"] = "euclidean"

    def scores(self, features: Tensor) -> Tensor:
        if self.metric == "cosine":
            return normalize(features, dim=1) @ normalize(self.means, dim=1).T
        # Around the mean of all, so that small differences of large norms lose no digits.
        centre = self.sums.sum(0) / self.counts.sum().clamp(min=1)
        x, means = features - centre, self.means - centre
        return 2 * x @ means.T - x.square().sum(1, keepdim=True) - means.square().sum(1)


class StreamingLDA(Prototypes):
    """Linear discriminant analysis with a mean per class and one covariance for all.

    Source: Hayes & Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant
    Analysis": precision ``L = ((1 - shrinkage) S + shrinkage I)^-1``, logits
    ``m_c' L x - m_c' L m_c / 2``, with equal priors. Here S is the pooled covariance within
    classes, from sums. The paper's recursion weighs a sample's deviation from the mean of its class
    by t/(t+1) after t samples of all classes, and so depends on their order; with t counted within
    the class it ends in this S. There is no base phase.

    Args:
        shrinkage: share of the identity in the covariance that is inverted.
    """

    shrinkage: Share = 1e-4

    def prepare(self, width: int) -> None:
        super().prepare(width)
        self.gram = self.zeros(width, width)
        self.weights = self.zeros(self.info.n_classes, width)

    def add(self, features: Tensor, y: Tensor) -> None:
        super().add(features, y)
        self.gram.add_(features.T @ features)

    def end_experience(self, experience: Experience) -> None:
        super().end_experience(experience)
        shrunk = (1 - self.shrinkage) * self.covariance
        shrunk.diagonal().add_(self.shrinkage)
        self.weights.copy_(torch.linalg.solve(shrunk, self.means.T).T)

    @property
    def covariance(self) -> Tensor:
        """Return the pooled covariance within classes, (width, width); needs a sample."""
        return (self.gram - self.sums.T @ self.means) / self.counts.sum()

    def scores(self, features: Tensor) -> Tensor:
        return features @ self.weights.T - (self.weights * self.means).sum(1) / 2


class RanPAC(Prototypes):
    """Ridge regression to one-hot labels on rectified random projections of the features.

    Source: McDonnell et al. 2023, "RanPAC: Random Projections and Pre-trained Models for Continual
    Learning", phase 2 of Algorithm 1: ``W = (G + ridge I)^-1 C`` with the Gram matrix G of the
    projections and their sums C by class. Phase 1, tuning the network on the first experience, is
    omitted. A state holds projections x projections numbers of 8 bytes, and the time to solve grows
    with the third power: the paper's 10,000 projections are 1,000 here.

    Args:
        projections: number of random directions, normal with unit variance.
        ridge: the penalty; None takes the power of ten from 1e-8 to 1e8 that, fitted to 80 % of the
            samples of each experience so far, has the least squared error on the other 20 % (drawn
            at random). In the authors' code these are of the present experience alone: a small one
            may then choose almost no penalty, which harms the classes of all. The sums over the
            20 % double the state, and their data are read once more.
    """

    projections: PositiveInt = 1000
    ridge: PositiveFloat | None = None

    def prepare(self, width: int) -> None:
        super().prepare(self.projections)
        self.gram = self.zeros(self.projections, self.projections)
        self.weights = self.zeros(self.info.n_classes, self.projections)
        self.directions = self.zeros(width, self.projections)
        self.directions.normal_(generator=self.info.rng.generator("ranpac/directions"))
        self.choice = self.info.rng.generator("ranpac/held-out")
        if self.ridge is None:
            self.held_gram = self.zeros(self.projections, self.projections)
            self.held_sums = self.zeros(self.info.n_classes, self.projections)

    def embed(self, features: Tensor) -> Tensor:
        """Return the rectified projections, (B, projections) float64."""
        return relu(super().embed(features) @ self.directions)

    def end_experience(self, experience: Experience) -> None:
        super().end_experience(experience)
        if self.ridge is None:
            self.hold_out(experience)
        ridge = self.ridge or self.best_ridge()
        self.weights.copy_(next(ridge_weights(self.gram, self.sums, [ridge])))

    def hold_out(self, experience: Experience) -> None:
        """Add a random fifth of an experience to the sums that choose the ridge; none of one."""
        n, device = len(experience.train), self.choice.device
        order = torch.randperm(n, generator=self.choice, device=device)
        rows = order[: min(max(1, n // 5), n - 1)].to(experience.train.index.device)
        for batch in self.batches(experience.subset(rows)):
            features = self.embed(self.seen(batch.x, batch.features))
            self.held_gram.add_(features.T @ features)
            self.held_sums.add_(one_hot(batch.y, self.info.n_classes).double().T @ features)

    def best_ridge(self) -> float:
        """Return the one of ``RIDGES`` that, fitted to the others, is best on what was held out."""
        fitted = ridge_weights(self.gram - self.held_gram, self.sums - self.held_sums, RIDGES)
        # The squared error from its sums, without what is the same for all.
        errors = [((w @ self.held_gram - 2 * self.held_sums) * w).sum() for w in fitted]
        return RIDGES[int(torch.stack(errors).argmin())]

    def add(self, features: Tensor, y: Tensor) -> None:
        super().add(features, y)
        self.gram.add_(features.T @ features)

    def scores(self, features: Tensor) -> Tensor:
        return features @ self.weights.T


def ridge_weights(gram: Tensor, sums: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """Yield the weights (C, M) of ridge regression without intercept, for each penalty.

    All penalties share one decomposition. Directions in which the Gram matrix is zero except for
    rounding get no weight: a penalty as small as the rounding would blow them up.

    Args:
        gram: inputs' * inputs, (M, M).
        sums: targets' * inputs, (C, M).
    """
    values, vectors = torch.linalg.eigh(gram)
    rounding = len(values) * torch.finfo(values.dtype).eps * values.max()
    rotated = (sums @ vectors).masked_fill(values <= rounding, 0.0)
    for ridge in ridges:
        yield rotated / (values.clamp(min=0) + ridge) @ vectors.T
