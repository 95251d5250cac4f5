"""Encoders: features of inputs, for curricula.

A new encoder is a function that returns one, and an entry point in ``cl_platform.encoders`` that
names it; ``module:function`` works as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cl_platform.core.preprocess import holds_tokens
from cl_platform.errors import DataError, one_line
from cl_platform.models.pretrained_cnn import CifarResNet
from cl_platform.models.text import TextEncoder

TEXTS = 64  # encoded at a time

Encoder = Callable[[Tensor], Tensor]
"""(B, ...) inputs as stored (uint8, float, or token ids) -> (B, D) float features."""


def pixels() -> Encoder:
    """Return an encoder to the inputs themselves, flattened; images in [0, 1]."""
    return lambda raw: unit(raw).flatten(1)


def text(model: str = "minilm") -> Encoder:
    """Return an encoder to the feature of the model ``minilm``: the mean output of a text's tokens.

    Source: Reimers & Gurevych 2019, section 3, the strategy they call MEAN.

    Args:
        model: ``minilm``, a folder or a name on the hub, the same as the stream's tokenizer.

    Raises:
        DataError: it is not available.
    """
    network = TextEncoder((1,), 1, weights=model)
    network.eval().requires_grad_(False)
    return lambda raw: torch.cat(
        [network.features(ids) for ids in _token_ids(raw, network.body).split(TEXTS)]
    )


def cifar_resnet(depth: Literal[20, 32] = 20, weights: str | None = None) -> Encoder:
    """Return an encoder to the 64 features of the model ``cifar-resnet``, trained on CIFAR-10.

    Args:
        depth: number of layers.
        weights: their file; None takes ``resnet<depth>-*.th`` of ``$CLP_DATA/pretrained``.

    Raises:
        DataError: its weights are not available.
    """
    network = CifarResNet((3, 32, 32), 1, depth=depth, weights=weights)
    network.eval().requires_grad_(False)
    return lambda raw: network.features(network.preprocess(255 * unit(_coloured(raw))))


def torchvision_model(model: str = "resnet18", weights: str = "DEFAULT") -> Encoder:
    """Return an encoder to the inputs of the last linear layer of a torchvision classifier.

    Args:
        model: its name in torchvision.
        weights: a name there, downloaded once, or a file with a state dict.

    Raises:
        DataError: torchvision or the weights are not available.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise DataError("encoder torchvision needs torchvision; install the extra `vision`") from (
            error
        )
    try:
        given = Path(weights).expanduser()
        chosen = models.get_model_weights(model)["DEFAULT" if given.is_file() else weights]
        network = models.get_model(model, weights=None if given.is_file() else chosen)
        if given.is_file():
            network.load_state_dict(torch.load(given, map_location="cpu", weights_only=True))
        names = [n for n, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not names:
            raise ValueError("it has no linear layer")
        parent, _, child = names[-1].rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        transform = chosen.transforms(antialias=True)
    except Exception as error:  # unknown names, no network, damaged files
        raise DataError(
            f"encoder torchvision: model={model}, weights={weights} is not available "
            f"({one_line(error, 200)}); give weights=FILE, or another encoder"
        ) from error
    network.eval().requires_grad_(False)
    return lambda raw: network(transform(_coloured(raw))).flatten(1)


def _token_ids(raw: Tensor, network: Any) -> Tensor:
    if not holds_tokens(raw):
        raise DataError(
            f"inputs of type {raw.dtype}: encoder text takes token ids; give encoder=pixels, or "
            "the stream a tokenizer"
        )
    size = network.get_input_embeddings().num_embeddings
    if int(raw.max()) >= size:
        raise DataError(
            f"token {int(raw.max())}, but the text encoder has tokens 0 to {size - 1}: give it the "
            "model of the stream's tokenizer"
        )
    return raw.long()


def unit(raw: Tensor) -> Tensor:
    """Return images (uint8) scaled to [0, 1], other numbers as they are."""
    if holds_tokens(raw):
        raise DataError("inputs are token ids, which this encoder does not take: give encoder=text")
    return raw.float() / 255 if raw.dtype == torch.uint8 else raw.float()


def _coloured(raw: Tensor) -> Tensor:
    """Return images as (B, 3, H, W); the channel of grey ones is repeated."""
    if raw.dim() != 4 or raw.shape[1] not in (1, 3):
        raise DataError(
            f"inputs of shape {tuple(raw.shape[1:])}: this encoder takes images (1 or 3, H, W); "
            "give encoder=pixels"
        )
    return raw.expand(-1, 3, -1, -1)
