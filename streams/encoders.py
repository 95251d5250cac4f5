"""Encoders: what curricula see of inputs. A new one is a function that returns an encoder, and an
entry point in ``cl_platform.encoders`` that names it; ``module:function`` works as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu

from cl_platform.errors import DataError
from cl_platform.preprocess import holds_tokens
from cl_platform.pretrained import load_encoder, load_tokenizer
from streams.datasets import data_home

TEXTS = 64  # encoded at a time

Encoder = Callable[[Tensor], Tensor]
"""(B, ...) inputs as stored (uint8, float, or token ids) -> (B, D) float features."""


def pixels() -> Encoder:
    """The inputs themselves, flattened; images in [0, 1]."""
    return lambda raw: unit(raw).flatten(1)


def text(model: str = "minilm") -> Encoder:
    """The mean of what a text encoder makes of each token of a text, padding left out.

    Source: Reimers & Gurevych 2019, section 3, the strategy they call MEAN.

    Args:
        model: ``minilm``, a folder or a name on the hub, the same as the stream's tokenizer.

    Raises:
        DataError: it cannot be had.
    """
    network = load_encoder(model).requires_grad_(False)
    padding = load_tokenizer(model).pad_token_id

    def embed(ids: Tensor) -> Tensor:
        real: Tensor = ids != padding
        states = network(input_ids=ids, attention_mask=real.long()).last_hidden_state
        means: Tensor = (states * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        return means

    return lambda raw: torch.cat([embed(ids) for ids in _token_ids(raw, network).split(TEXTS)])


def cifar_resnet(depth: Literal[20, 32] = 20) -> Encoder:
    """The 64 features of a ResNet for 32x32 images that was trained on CIFAR-10.

    Its weights are the file that ``akamaster/pytorch_resnet_cifar10`` publishes, put by hand into
    ``$CLP_DATA/pretrained``. Source: He et al. 2016, section 4.2, with parameter-free shortcuts.

    Raises:
        DataError: the file is not there.
    """
    folder = data_home() / "pretrained"
    found = sorted(folder.glob(f"resnet{depth}-*.th"))
    if not found:
        raise DataError(
            f"encoder cifar-resnet: no file resnet{depth}-*.th in {folder}; put the weights that "
            "pytorch_resnet_cifar10 publishes there"
        )
    state = torch.load(found[0], map_location="cpu", weights_only=True)["state_dict"]
    network = _CifarResNet((depth - 2) // 6)
    weights = {name.removeprefix("module."): value for name, value in state.items()}
    network.load_state_dict({k: v for k, v in weights.items() if not k.startswith("linear.")})
    return _frozen(network, _cifar_inputs)


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
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"encoder torchvision: model={model}, weights={weights} cannot be had ({reason}); "
            "give weights=FILE, or another encoder"
        ) from error
    return _frozen(network, lambda raw: transform(_coloured(raw)))


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


def _frozen(network: nn.Module, prepare: Encoder) -> Encoder:
    network.eval().requires_grad_(False)
    return lambda raw: network(prepare(raw)).flatten(1)


def _coloured(raw: Tensor) -> Tensor:
    """(B, 3, H, W); grey images have their channel three times."""
    if raw.dim() != 4 or raw.shape[1] not in (1, 3):
        raise DataError(
            f"inputs of shape {tuple(raw.shape[1:])}: this encoder takes images (1 or 3, H, W); "
            "give encoder=pixels"
        )
    return raw.expand(-1, 3, -1, -1)


def _cifar_inputs(raw: Tensor) -> Tensor:
    x = unit(_coloured(raw))
    if x.shape[2:] != (32, 32):
        x = interpolate(x, (32, 32), mode="bilinear", antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (x - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class _Block(nn.Module):
    def __init__(self, wide_in: int, wide: int) -> None:
        super().__init__()
        self.stride = 1 if wide_in == wide else 2
        self.conv1 = nn.Conv2d(wide_in, wide, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:  # every other pixel, and channels of zeros on both sides
            more = (out.shape[1] - x.shape[1]) // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        return relu(out + x)


class _CifarResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean((2, 3))


def _stage(wide_in: int, wide: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Block(wide_in, wide), *(_Block(wide, wide) for _ in range(blocks - 1)))
