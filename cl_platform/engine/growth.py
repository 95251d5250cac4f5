"""Growth: the state of a strategy carried into the shapes of a stream that has grown."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import StreamInfo
from cl_platform.errors import ContractError


def grown(strategy: Strategy, state: Mapping[str, Any], before: StreamInfo) -> dict[str, Any]:
    """Return a state in the shapes that a strategy has after an experience has arrived.

    What was there keeps its values, so that old classes keep their logits; what is new is as
    :meth:`Strategy.setup` made it. Axes of classes, of experiences, and of all trainable parameters
    (flat vectors in the order of ``model.parameters()``) grow by themselves. A module that lays its
    buffers out in another way has a method ``grow_state(state)``: it takes its own entries from
    before and returns them as it holds them now.

    Args:
        strategy: fresh from `setup` for the grown stream.
        state: its ``state_dict()`` from before, when its information was `before`.

    Raises:
        ContractError: an entry changed its shape, and none of this explains how.
    """
    info = strategy.info
    axes = {
        (before.n_classes, info.n_classes): torch.arange(before.n_classes),
        (before.n_experiences, info.n_experiences): torch.arange(before.n_experiences),
        **_flat_axis(strategy, state),
    }
    present, own = strategy.state_dict(), _own_layouts(strategy, state)
    result = {**present, **state, **own}
    for key in sorted(present.keys() & state.keys() - own.keys()):
        old, fresh = state[key], present[key]
        if isinstance(old, Tensor) and isinstance(fresh, Tensor) and old.shape != fresh.shape:
            result[key] = _carried(strategy, key, old, fresh, axes)
    return result


Axes = Mapping[tuple[int, int], Tensor]
"""Of each axis, its sizes before and now: where the old values are in it now, (size before,)."""


def _flat_axis(strategy: Strategy, state: Mapping[str, Any]) -> Axes:
    """Return the axis of vectors over all trainable parameters of the strategy's model."""
    model = getattr(strategy, "model", None)
    members = {id(p) for p in model.parameters()} if isinstance(model, nn.Module) else ()
    named = strategy.named_parameters()
    trained = {name: p for name, p in named if p.requires_grad and id(p) in members}
    if not trained.keys() <= state.keys():
        return {}
    places, start, before = [], 0, 0
    for name, parameter in trained.items():
        old = state[name].shape
        place = torch.arange(start, start + parameter.numel()).view(parameter.shape)
        places.append(place[tuple(map(slice, old))].flatten())
        start, before = start + parameter.numel(), before + prod(old)
    return {(before, start): torch.cat(places)} if places else {}


def _carried(strategy: Strategy, key: str, old: Tensor, fresh: Tensor, axes: Axes) -> Tensor:
    """Return fresh values with the old ones where they belong."""
    shape, places = list(fresh.shape), []
    for dimension, sizes in enumerate(zip(old.shape, fresh.shape, strict=False)):
        place = torch.arange(sizes[0])
        if sizes in axes:
            place = axes[sizes]
        elif sizes[0] != sizes[1] and strategy.grows:  # by itself, experience by experience
            shape[dimension] = sizes[0]
        elif sizes[0] != sizes[1]:
            break
        places.append(place)
    if len(places) != old.dim() or old.dim() != fresh.dim():
        raise ContractError(
            f"{type(strategy).__name__} cannot grow {key!r} from {tuple(old.shape)} to "
            f"{tuple(fresh.shape)}: give its module a method grow_state(state), or declare "
            "`needs_horizon: ClassVar[bool] = True`"
        )
    carried = fresh.clone() if shape == list(fresh.shape) else old.new_zeros(shape)
    carried[torch.meshgrid(*places, indexing="ij")] = old.to(carried.device)
    return carried


def _own_layouts(strategy: Strategy, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the modules that grow their states themselves."""
    entries: dict[str, Any] = {}
    for name, module in strategy.named_modules():
        grow = getattr(module, "grow_state", None)
        prefix = f"{name}." if name else ""
        if callable(grow):
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            entries |= {f"{prefix}{k}": v for k, v in grow(own).items()}
    return entries
