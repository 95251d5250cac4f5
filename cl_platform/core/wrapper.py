"""Strategies around strategies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from cl_platform.core.batch import Batch, Chunk
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, StreamInfo
from cl_platform.errors import BadInput


def _inner(name: str) -> Any:
    return property(lambda self: getattr(self.inner, name))


class Wrapper(Strategy):
    """A strategy that passes every call on to an inner one; override what it changes.

    Its state is the inner strategy's, so a wrapper that changes nothing is bit-identical to what it
    wraps. Wrappers nest.

    Args:
        inner: the strategy inside, by name with parameters or as an object.
    """

    inner: Strategy

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy):
            raise BadInput(
                f"{type(self).__name__}(inner={self.inner!r}): give a strategy object, or the "
                'wrapper by name as well: {"name": ..., "inner": ...}'
            )
        if self.inner.own_loop:
            raise BadInput(
                f"{type(self).__name__}: {type(self.inner).__name__} trains in a loop of its own, "
                "so nothing can be put around its steps; give another strategy"
            )

    needs_task = _inner("needs_task")
    trains_on = _inner("trains_on")
    takes_features = _inner("takes_features")
    freezes_model = _inner("freezes_model")
    grows = _inner("grows")
    needs_second_pass = _inner("needs_second_pass")
    needs_validation = _inner("needs_validation")
    needs_horizon = _inner("needs_horizon")
    revisits = _inner("revisits")
    task_free = _inner("task_free")
    clip_norm = _inner("clip_norm")
    refuses = _inner("refuses")
    model = _inner("model")

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.inner.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self.inner.optimizer = optimizer

    def check(self, task_classes: Tensor) -> None:
        self.inner.check(task_classes)

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.inner.setup(info)

    def begin_experience(self, experience: Experience) -> None:
        self.inner.begin_experience(experience)

    def cross_entropy(
        self,
        logits: Tensor,
        labels: Batch | Tensor,
        reduction: Literal["mean", "none"] = "mean",
    ) -> Tensor:
        return self.inner.cross_entropy(logits, labels, reduction)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return self.inner.prepare_batches(chunk)

    def loss(self, batch: Batch) -> Tensor:
        return self.inner.loss(batch)

    def training_step(self, batch: Batch) -> Tensor:
        return self.inner.training_step(batch)

    def after_step(self, batch: Batch) -> None:
        self.inner.after_step(batch)

    def end_experience(self, experience: Experience) -> None:
        self.inner.end_experience(experience)

    def evaluation_weights(self) -> dict[str, Tensor]:
        return {f"inner.{name}": w for name, w in self.inner.evaluation_weights().items()}

    def diagnostics(self) -> dict[str, float | list[float]]:
        return self.inner.diagnostics()

    def forward(self, x: Tensor, task: Tensor | None = None, *features: Tensor) -> Tensor:
        logits: Tensor = self.inner(x, task, *features)
        return logits


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy inside of all wrappers, whose loss is the one that is computed."""
    while isinstance(strategy, Wrapper):
        strategy = strategy.inner
    return strategy
