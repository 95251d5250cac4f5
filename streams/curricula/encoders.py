"""Encoders: what curricula see of inputs. A new one is a function that returns an encoder, and an
entry point in ``cl_platform.encoders`` that names it; ``module:function`` works as well.
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
    """The inputs themselves, flattened; images in [0, 1]."""
    return lambda raw: unit(raw).flatten(1)


def text(model: str = "minilm") -> Encoder:
    """The feature of the model ``minilm``: the mean of what it makes of each token of a text.

    Source: Reimers & Gurevych 2019, section 3, the strategy they call MEAN.

    Args:
        model: ``minilm``, a folder or a name on the hub, the same as the stream's tokenizer.

    Raises:
        DataError: it cannot be had.
    """
    network = TextEncoder((1,), 1, weights=model)
    network.eval().requires_grad_(False)
    return lambda raw: torch.cat(
        [network.features(ids) for ids in _token_ids(raw, network.body).split(TEXTS)]
    )


def cifar_resnet(depth: Literal[20, 32] = 20, weights: str | None = None) -> Encoder:
    """The 64 features of the model ``cifar-resnet``, a ResNet that was trained on CIFAR-10.

    Raises:
        DataError: its weights are not there.
    """
    network = CifarResNet((3, 32, 32), 1, depth=depth, weights=weights)
    network.eval().requires_grad_(False)
    return lambda raw: network.features(network.preprocess(255 * unit(_coloured(raw))))


def torchvision_model(model: str = "resnet18", weights: str = "DEFAULT") -> Encoder:
    """What the last linear layer of a torchvision classifier sees.

    Args:
        model: its name in torchvision.
        weights: a name there, downloaded once, or a file with a state dict.

    Raises:
        DataError: torchvision or its weights cannot be had.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise DataError("encoder torchvision needs torchvision; install the extra `vision`") from (
            error
        )
    try:
        given = Path(weights).expanduser()
        known = models.get_model_weights(model)
        chosen = known["DEFAULT" if given.is_file() else weights]
        network = models.get_model(model, weights=None if given.is_file() else chosen)
        if given.is_file():
            network.load_state_dict(torch.load(given, map_location="cpu", weights_only=True))
        _without_last_layer(network)
        transform = chosen.transforms(antialias=True)
    except Exception as error:  # unknown names, no network, damaged files
        raise DataError(
            f"encoder torchvision: model={model}, weights={weights} cannot be had "
            f"({one_line(error, 200)}); give weights=FILE, or another encoder"
        ) from error
    network.eval().requires_grad_(False)
    return lambda raw: network(transform(_coloured(raw))).flatten(1)


def _without_last_layer(network: nn.Module) -> None:
    """Make what the last linear layer sees the output."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("it has no linear layer")
    parent, _, child = names[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())


def _token_ids(raw: Tensor, network: Any) -> Tensor:
    if not holds_tokens(raw):
        raise DataError(
            f"inputs of type {raw.dtype}: encoder text takes token ids; give encoder=pixels, or "
            "the stream a tokenizer"
        )
    known = network.get_input_embeddings().num_embeddings
    if int(raw.max()) >= known:
        raise DataError(
            f"token {int(raw.max())}, but the text encoder knows {known} only; give it the model "
            "that the stream's tokenizer belongs to"
        )
    return raw.long()


def unit(raw: Tensor) -> Tensor:
    """Images (uint8) in [0, 1]; other numbers as they are."""
    if holds_tokens(raw):
        raise DataError("inputs are token ids, which this encoder cannot read; give encoder=text")
    return raw.float() / 255 if raw.dtype == torch.uint8 else raw.float()


def _coloured(raw: Tensor) -> Tensor:
    """(B, 3, H, W); grey images have their channel three times."""
    if raw.dim() != 4 or raw.shape[1] not in (1, 3):
        raise DataError(
            f"inputs of shape {tuple(raw.shape[1:])}: this encoder takes images (1 or 3, H, W); "
            "give encoder=pixels"
        )
    return raw.expand(-1, 3, -1, -1)
