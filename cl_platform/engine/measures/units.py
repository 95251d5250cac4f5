"""Which units of a network are active, whoever calls their activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Activations with an off state. Of others (tanh, leaky ReLU) no unit is ever off, by its sign.
ACTIVATIONS = frozenset(
    (
        *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu6),
        *(functional.gelu, functional.silu, functional.mish, functional.hardswish),
    )
)
CONVOLUTIONS = frozenset((torch.conv1d, torch.conv2d, torch.conv3d))


@dataclass
class Layer:
    """What an activation has given so far.

    Args:
        active: how often each unit's output was positive, (units,) int64.
        outputs: how many there were, over all units.
    """

    active: Tensor
    outputs: int


class Units(TorchFunctionMode):
    """Counts, inside, the positive outputs of activations, and keeps what the classifier sees.

    It watches torch's functions, which modules call as well, so that a functional `relu` counts as
    a module does; nothing is attached to the network. A unit is a feature after a linear layer, a
    channel after a convolution, whatever the position. An activation is known by the weights of
    the layer that it follows, so that networks of several tasks are told apart.

    Args:
        classifier: whose inputs are the features; None, or one that is not called, for those of
            the last linear layer of a forward pass.

    Attributes:
        layers: in the order of their first use.
        classified: the inputs of the classifier, (B, D) each.
    """

    def __init__(self, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.layers: dict[tuple[int | str, int], Layer] = {}
        self.classified: list[Tensor] = []
        self._weight = getattr(classifier, "weight", None)
        self._last: Tensor | None = None
        self._lasts: list[Tensor] = []
        self.next_pass()

    def next_pass(self) -> None:
        """Begin another forward pass."""
        if self._last is not None:
            self._lasts.append(self._last)
        self._last = None
        self._places = 0
        self._follow("input", axis=1)

    def features(self) -> Tensor | None:
        """Return what was classified, (B, D); None where no linear layer gave it."""
        self.next_pass()
        found = self.classified or self._lasts
        return torch.cat(found) if len({x.shape[1:] for x in found}) == 1 else None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear or func in CONVOLUTIONS:
            self._enter(func, *_given(args, kwargs, "input", "weight"))
        output = func(*args, **kwargs)
        if func in ACTIVATIONS or (func is functional.hardtanh and _minimum(args, kwargs) == 0):
            self._count(output)
        return output

    def _enter(self, func: Any, x: Tensor, weight: Tensor) -> None:
        """Note the layer that the next activations follow."""
        self._places += 1
        # A weight that is put together anew in each pass is known by its place.
        name = id(weight) if isinstance(weight, nn.Parameter) else f"place {self._places}"
        self._follow(name, axis=-1 if func is functional.linear else 1)
        if func is functional.linear and x.dim() == 2:
            self._last = x
            if weight is self._weight:
                self.classified.append(x)

    def _follow(self, layer: int | str, axis: int) -> None:
        self._layer, self._axis, self._nth = layer, axis, 0

    def _count(self, output: Tensor) -> None:
        if output.dim() < 2:
            return
        key, axis = (self._layer, self._nth), self._axis % output.dim()
        self._nth += 1
        active = (output > 0).sum([d for d in range(output.dim()) if d != axis])
        known = self.layers.get(key)
        if known is None or len(known.active) != len(active):
            self.layers[key] = Layer(active, output.numel())
        else:
            known.active += active
            known.outputs += output.numel()


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any], *names: str) -> list[Any]:
    return [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(names)]


def _minimum(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """Return the `min_val` of a hard tanh, which is 0 in ReLU6."""
    return float(args[1] if len(args) > 1 else kwargs.get("min_val", -1.0))
