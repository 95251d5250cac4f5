"""Settings of a run that may be lists over the experiences: what each training step has of them.

The k-th item is that of the k-th experience in the order of learning. The last one holds for all
that follow: ``epochs: [20, 5]`` is a base experience of 20 epochs and sessions of 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt

from cl_platform.config.run_config import RunConfig
from cl_platform.config.training import Optimizer, RunOptimizer


class StepConfig(RunConfig):
    """The settings of one step of training: lists have given way to one of their items."""

    epochs: PositiveInt = 1
    optimizer: Optimizer = Optimizer()


def series(config: RunConfig) -> dict[str, Sequence[Any]]:
    """Return the settings that are lists over the experiences, by dotted key."""
    found: dict[str, Any] = {"epochs": config.epochs}
    if isinstance(config.optimizer, RunOptimizer):
        found["optimizer.lr"] = config.optimizer.lr
    else:
        found["optimizer"] = config.optimizer
    return {key: value for key, value in found.items() if isinstance(value, list)}


def at(config: RunConfig, k: int) -> StepConfig:
    """Return the settings of the k-th step of training, counted from 1; before it, of the first."""
    optimizer = item(config.optimizer, k)
    own = {"epochs": item(config.epochs, k), "optimizer": _of_step(optimizer, k)}
    return StepConfig.model_construct(**{**dict(config), **own})


def _of_step(optimizer: RunOptimizer, k: int) -> Optimizer:
    return Optimizer.model_construct(**{**dict(optimizer), "lr": item(optimizer.lr, k)})


def item(value: Any, k: int) -> Any:
    """Return what a setting is at the k-th step."""
    return value[min(max(k, 1), len(value)) - 1] if isinstance(value, list) else value


def distinct(config: RunConfig) -> list[StepConfig]:
    """Return the settings of the steps by which all lists have come to their ends."""
    longest = max([1, *map(len, series(config).values())])
    return [at(config, k) for k in range(1, longest + 1)]
