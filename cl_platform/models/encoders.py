"""Encoders of the library transformers, for images and texts, as bodies."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.body import Body, example_of
from cl_platform.models.cnn import image_shape

Pooling = Literal["mean", "first"]
INPUTS = ("pixel_values", "input_ids")


class Encoder(Body):
    """An encoder: its feature is the first token, or the mean of the real ones.

    Args:
        network: of the library transformers, without a head.
        pooling: None takes the mean for texts; for images the first token if it is one for the
            class, else the mean.
    """

    def __init__(
        self,
        network: Any,
        title: str,
        channels: int | None = None,
        size: tuple[int, int] | None = None,
        pooling: Pooling | None = None,
    ) -> None:
        super().__init__(network, title, channels, size)
        self.reads = network.main_input_name
        self.padding = getattr(network.config, "pad_token_id", None) or 0
        names = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
        self.pooling = pooling or ("first" if "cls_token" in names else "mean")
        own = getattr(network.config, "image_size", None)
        other = size is not None and own is not None and size != (own, own)
        other = (
            other and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        )
        # Positions that were trained for one size are interpolated for another.
        self.more = {"interpolate_pos_encoding": True} if other else {}

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask(x)
        if mask is None:
            tokens = self.network(pixel_values=self.fitted(x), **self.more).last_hidden_state
        else:
            ids = x[:, : mask.shape[1]].long()
            tokens = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return pooled(tokens, mask, self.pooling)

    def mask(self, x: Tensor) -> Tensor | None:
        """Return which ids are no padding, (B, m); m < n where all of the batch is shorter."""
        if self.reads == "pixel_values":
            return None
        if x.is_floating_point():
            raise BadInput(
                f"{self.title} takes token ids, not numbers; give --set stream.tokenizer=NAME"
            )
        mask = x != self.padding
        mask[:, 0] = True  # the first token is one, whatever its number
        # Elsewhere looking would wait for the device, and an exported program cannot look.
        if x.device.type == "cpu" and not torch.compiler.is_exporting():
            mask = mask[:, : int(mask.any(0).nonzero().max()) + 1]
        return mask

    def example(self, input_shape: tuple[int, ...]) -> Tensor:
        """Return two inputs for a trial."""
        if self.reads == "pixel_values":
            return example_of(input_shape)
        return torch.full((2, *input_shape), self.padding + 1, dtype=torch.int64)


def pooled(tokens: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Pool tokens (B, n, width), or maps (B, width, H, W), into features (B, width)."""
    if tokens.dim() == 4:
        return tokens.mean((2, 3))
    if pooling == "first":
        return tokens[:, 0]
    if mask is None:
        return tokens.mean(1)
    real = mask[:, :, None]
    return (tokens * real).sum(1) / real.sum(1)


def is_encoder(module: nn.Module) -> bool:
    """Return whether a module is one of the library transformers."""
    return hasattr(module, "main_input_name") and hasattr(module, "config")


def body_of_encoder(
    module: Any,
    title: str,
    input_shape: tuple[int, ...],
    size: tuple[int, int] | None = None,
    pooling: Pooling | None = None,
) -> Encoder:
    """Return an encoder for inputs of a stream, without a head and without the layer before it.

    Raises:
        BadInput: it does not take such inputs.
    """
    network = module.base_model
    reads, n = network.main_input_name, len(input_shape)
    if reads not in INPUTS or n != {"pixel_values": 3, "input_ids": 1}[reads]:
        wanted = {"pixel_values": "images", "input_ids": "token ids, as stream.tokenizer gives"}
        raise BadInput(
            f"inputs of shape {tuple(input_shape)}: {title} takes {wanted.get(reads, reads)}"
        )
    pooler = getattr(network, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        network.pooler = None  # weights of which no feature is made
    channels = None
    if reads == "pixel_values":
        given, *_ = image_shape(input_shape)
        wide = getattr(network.config, "num_channels", given)
        if given not in (1, wide):
            raise BadInput(f"images of {given} channels: {title} takes {wide}, or grey ones")
        channels = None if given == wide else wide
    return Encoder(network, title, channels, size, pooling)
