"""A transformer of a few thousand weights, for checks and tests of what builds on transformers."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from cl_platform.models.backbone import Backbone, Projection, Tokens

N_TOKENS = 16


class TinyTransformer(Backbone):
    """Two blocks of width 16 over sixteen random views of the inputs, behind a class token.

    Its weights come from a seed of its own: "pretrained" weights without a file, the same in every
    run.
    """

    pretrained: ClassVar[bool] = True
    width, depth = 16, 2

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(self.width, n_classes)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.views = nn.Linear(math.prod(input_shape), N_TOKENS * self.width)
            self.first = nn.Parameter(0.1 * torch.randn(1, self.width))
            self.layers = nn.ModuleList(_Block(self.width, heads=2) for _ in range(self.depth))
            self.norm = nn.LayerNorm(self.width)

    def embed(self, x: Tensor) -> Tokens:
        views = self.views(x.flatten(1)).view(-1, N_TOKENS, self.width)
        return Tokens(views).prepend(self.first)

    def blocks(self, tokens: Tokens) -> Tensor:
        x = tokens.values
        for layer in self.layers:
            x = layer(x)
        output: Tensor = self.norm(x)
        return output

    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values[:, 0]

    def projections(self) -> dict[str, Projection]:
        return {
            f"{i}.{name}": Projection(layer.get_submodule(name), slice(None))  # type: ignore[arg-type]
            for i, layer in enumerate(self.layers)
            for name in ("query", "key", "value")
        }


class _Block(nn.Module):
    """Attention and a small perceptron, each on normalised inputs and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mixed = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.before(x)
        query, key, value = (
            layer(normal).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = scaled_dot_product_attention(query, key, value)
        x = x + self.mixed(heads.transpose(1, 2).flatten(2))
        output: Tensor = x + self.narrow(gelu(self.wide(self.between(x))))
        return output
