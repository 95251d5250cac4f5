"""Text encoders of the library transformers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone, Projection, Tokens
from cl_platform.models.hub import load_encoder, weights_digest


class TextEncoder(Backbone):
    """A pretrained encoder for token ids, as streams with a ``tokenizer`` of the same name give.

    Any encoder of the library that has `embeddings` and, in `encoder.layer`, the attention of BERT.

    Args:
        weights: ``minilm`` (all-MiniLM-L6-v2, which the extra `text` installs), a folder, or a name
            on the hub.
        pooling: the feature is the mean over real tokens, as all-MiniLM-L6-v2 was trained, or the
            first token's.
    """

    pretrained: ClassVar[bool] = True
    body: Any  # of the library

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        weights: str = "minilm",
        pooling: Literal["mean", "first"] = "mean",
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise BadInput(
                f"inputs of shape {tuple(input_shape)} are no token ids (length,); "
                f"give --set stream.tokenizer={weights}"
            )
        self.body = load_encoder(weights)
        config = self.body.config
        self.width, self.depth = config.hidden_size, config.num_hidden_layers
        self.padding = config.pad_token_id or 0
        self.pooling = pooling
        self.classifier = nn.Linear(self.width, n_classes)

    @staticmethod
    def fingerprint(weights: str = "minilm", **parameters: object) -> str:
        """Return a hash of the weights."""
        return str(weights_digest(weights))

    def embed(self, x: Tensor) -> Tokens:
        """Embed token ids (B, n) as (B, m, width); m < n where all of the batch is shorter."""
        if x.is_floating_point():
            raise BadInput(
                "a text encoder takes token ids, not numbers; give --set stream.tokenizer=minilm"
            )
        mask = x != self.padding
        mask[:, 0] = True  # the first token is one, whatever its number
        # Elsewhere looking would wait for the device, and an exported program cannot look.
        if x.device.type == "cpu" and not torch.compiler.is_exporting():
            longest = int(mask.any(0).nonzero().max()) + 1
            x, mask = x[:, :longest], mask[:, :longest]
        return Tokens(self.body.embeddings(input_ids=x.long()), mask)

    def blocks(self, tokens: Tokens) -> Tensor:
        assert tokens.mask is not None
        attended = tokens.mask[:, None, None, :]
        hidden: Tensor = self.body.encoder(tokens.values, attention_mask=attended).last_hidden_state
        return hidden

    def pool(self, tokens: Tokens) -> Tensor:
        if self.pooling == "first":
            return tokens.values[:, 0]
        assert tokens.mask is not None
        real = tokens.mask[:, :, None]
        return (tokens.values * real).sum(1) / real.sum(1)

    def projections(self) -> dict[str, Projection]:
        everything = slice(None)
        return {
            f"{i}.{name}": Projection(getattr(layer.attention.self, name), everything)
            for i, layer in enumerate(self.body.encoder.layer)
            for name in ("query", "key", "value")
        }
