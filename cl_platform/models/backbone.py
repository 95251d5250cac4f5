"""Transformers whose inner places are open: tokens in, tokens out, a feature, and where prompts,
prefixes and low-rank updates attach. The libraries' own modules run as they are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from cl_platform.errors import BadInput
from cl_platform.models.classifier import Classifier
from cl_platform.models.precision import attending

HIDDEN = -1e4  # what is added to the score of a key that a query may not see is lower


@dataclass(frozen=True)
class Tokens:
    """What a transformer's blocks take and give.

    Args:
        values: (B, n, width).
        mask: (B, n) bool, false for padding; None where all tokens are real.
        inputs: what they were made of, (B, ...), where a network's own forward needs it again.
    """

    values: Tensor
    mask: Tensor | None = None
    inputs: Tensor | None = None

    def prepend(self, prompts: Tensor) -> Tokens:
        """Prepend prompts (P, width), or (B, P, width) for every sample its own."""
        # Not len(): a program that is exported would be for this size of a batch only.
        n = self.values.shape[0]
        prompts = prompts.to(self.values.dtype).expand(n, -1, -1)
        mask = self.mask
        if mask is not None:
            mask = pad(mask, (prompts.shape[1], 0), value=True)
        return replace(self, values=torch.cat([prompts, self.values], dim=1), mask=mask)

    def split(self, n: int) -> tuple[Tokens, Tokens]:
        """Return the first n tokens, and the others."""
        before, after = (slice(None, n), slice(n, None))
        return self._cut(before), self._cut(after)

    def _cut(self, part: slice) -> Tokens:
        mask = None if self.mask is None else self.mask[:, part]
        return replace(self, values=self.values[:, part], mask=mask)


class Prefix(NamedTuple):
    """What is prepended to the keys and values of one attention layer (prefix tuning).

    Each is (L, width), or (B, L, width) for every sample its own.
    """

    keys: Tensor
    values: Tensor


class LowRank(NamedTuple):
    """The update ``up @ down`` of a linear layer's weight, (out, in), of rank r.

    `down` is (r, in) and `up` (out, r), or (B, r, in) and (B, out, r) for every sample its own.
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True, eq=False)
class Projection:
    """A weight to which a low-rank update may be added: some rows of a linear layer's."""

    layer: nn.Linear
    rows: slice

    @property
    def weight(self) -> Tensor:
        """The rows of the layer's weight, (out, in), a view."""
        return self.layer.weight[self.rows]

    def adding(self, update: LowRank) -> torch.utils.hooks.RemovableHandle:
        """Add an update to what the layer gives, until the handle is removed."""

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output[..., self.rows] += inputs[0] @ update.down.mT @ update.up.mT
            return output

        return self.layer.register_forward_hook(add)


class Backbone(Classifier):
    """A transformer. Subclasses say how inputs become tokens, and run the blocks.

    Attributes:
        width: of a token.
        depth: number of blocks.
    """

    width: int
    depth: int

    @abstractmethod
    def embed(self, x: Tensor) -> Tokens:
        """Turn inputs (B, *input_shape) into tokens with their positions."""

    @abstractmethod
    def blocks(self, tokens: Tokens) -> Tensor:
        """Pass tokens (B, n, width) through all blocks and the last normalisation, same shape."""

    @abstractmethod
    def pool(self, tokens: Tokens) -> Tensor:
        """Pool the output of the blocks into one feature (B, width)."""

    @abstractmethod
    def projections(self) -> dict[str, Projection]:
        """Return the attention's weights by block and name: ``0.query``, ``0.key``, ..."""

    def encode(
        self,
        tokens: Tokens,
        prefixes: Mapping[int, Prefix] | None = None,
        updates: Mapping[str, LowRank] | None = None,
    ) -> Tokens:
        """Pass tokens through the blocks, (B, n, width), with what is attached on the way.

        Args:
            prefixes: by block, from 0.
            updates: by name of a projection.
        """
        with ExitStack() as attached:
            attached.enter_context(attending(tokens.values.device))
            if prefixes:
                attached.enter_context(prefixed(prefixes, self.depth))
            if updates:
                places = self.projections()
                for name, update in updates.items():
                    attached.callback(places[name].adding(update).remove)
            return replace(tokens, values=self.blocks(tokens))

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.encode(self.embed(x)))


@contextmanager
def prefixed(prefixes: Mapping[int, Prefix], depth: int) -> Iterator[None]:
    """Give prefixes to torch's attention inside; the k-th call is that of the k-th block.

    Raises:
        BadInput: there were not as many calls as blocks: the prefixes would have had no effect.
    """
    mode = Attention(prefixes)
    with mode:
        yield
    if mode.calls != depth:
        raise BadInput(
            f"{depth} blocks called torch's scaled_dot_product_attention {mode.calls} times, so "
            "prefixes do not reach them: use an attention implementation of torch (sdpa)"
        )


class Attention(TorchFunctionMode):
    """Torch's attention as it is called inside, with prefixes; `calls` counts the calls.

    A mask made for fewer tokens lets those in front of them through: prefixes and prompts.
    """

    def __init__(self, prefixes: Mapping[int, Prefix]) -> None:
        super().__init__()
        self.prefixes = prefixes
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            prefix = self.prefixes.get(self.calls)
            self.calls += 1
            query, key, value = args
            if prefix is not None:
                if kwargs.get("is_causal"):  # torch counts from the first key, now the prefix's
                    n = query.shape[-2]
                    past = torch.ones(n, n, dtype=torch.bool, device=query.device).tril()
                    kwargs = {**kwargs, "is_causal": False, "attn_mask": past}
                key, value = _before(key, prefix.keys), _before(value, prefix.values)
            return func(query, key, value, **{**kwargs, **_wider_mask(kwargs, query, key)})
        return func(*args, **kwargs)


def _before(heads: Tensor, prefix: Tensor) -> Tensor:
    """Prepend a prefix (L, H d) or (B, L, H d) to (B, H, n, d): (B, H, L + n, d)."""
    n_batch, n_heads, _, size = heads.shape
    split = prefix.to(heads.dtype).unflatten(-1, (n_heads, size)).transpose(-3, -2)
    return torch.cat([split.expand(n_batch, -1, -1, -1), heads], dim=2)


def _wider_mask(kwargs: dict[str, Any], query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """Return the mask (..., n, n) of an attention, bool or additive, for what came to the front.

    All see it, and new queries see what any of the others does. A size of 1 stands for all.
    """
    mask = kwargs.get("attn_mask")
    if mask is None:
        return {}
    keys, queries = (
        max(0, tokens.shape[-2] - size) if size > 1 else 0
        for tokens, size in zip((key, query), mask.mT.shape[-2:], strict=True)
    )
    mask = pad(mask, (keys, 0), value=1 if mask.dtype == torch.bool else 0)
    if queries:
        seen = mask.amax(-2, keepdim=True)
        if mask.dtype != torch.bool:  # a bias between two places is none of a third
            seen = seen.where(seen < HIDDEN, 0)
        mask = torch.cat([seen.expand(*mask.shape[:-2], queries, -1), mask], dim=-2)
    return {"attn_mask": mask}
