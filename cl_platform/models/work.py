"""How much a model has to do for its inputs, told by its layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

BY_ELEMENT = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm)  # their weights multiply no vectors


def multiplications(module: nn.Module, forward: Callable[[], object]) -> int:
    """Return the multiplications by weights, in linear and convolutional layers and attention, of
    what `forward` does with a module."""
    found = [0]

    def count(layer: nn.Module, _: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(layer, BY_ELEMENT) or not isinstance(output, torch.Tensor):
            return
        channels = output.shape[1 if _is_convolution(layer) else -1] if output.dim() > 1 else 1
        found[0] += _own_weights(layer) * output.numel() // max(1, channels)

    with ExitStack() as hooks:
        for layer in module.modules():
            if _own_weights(layer):
                hooks.enter_context(layer.register_forward_hook(count))
        forward()
    return found[0]


def weights_of(module: nn.Module) -> int:
    """Return how many weights of a module :func:`multiplications` would count, once each."""
    layers = (m for m in module.modules() if not isinstance(m, BY_ELEMENT))
    return sum(_own_weights(layer) for layer in layers)


def _own_weights(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters(recurse=False) if p.dim() > 1)


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
