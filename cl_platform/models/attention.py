"""Torch's own attention layer, with the weights behind linear layers and without a fast path."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cl_platform.errors import BadInput


class SelfAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes where queries, keys and values are the same tokens.

    That layer reads one weight for all three past any hook, and at inference calls a kernel in
    which no prefix can be. This one has the same parameters and calls the attention of torch.

    Args:
        given: the layer, whose parameters are taken over.
    """

    def __init__(self, given: nn.MultiheadAttention) -> None:
        super().__init__()
        width, bias = given.embed_dim, given.in_proj_bias is not None
        self.qkv = nn.Linear(width, 3 * width, bias=bias, device="meta")
        self.qkv.weight = given.in_proj_weight
        if bias:
            self.qkv.bias = given.in_proj_bias
        self.out_proj = given.out_proj
        self.num_heads, self.dropout = given.num_heads, given.dropout
        # Torch's transformer layers look at these, and take no fast path without a bias.
        self.batch_first, self.in_proj_bias, self._qkv_same_embed_dim = (
            given.batch_first,
            None,
            True,
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Return the output, shaped like `query`, and None for the weights, which are not kept."""
        if key is not query or value is not query:
            raise BadInput("a block attends to other tokens than its own: it cannot be opened")
        x = query if self.batch_first else query.transpose(0, 1)
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        mask = _merged(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1), None


def _merged(attn: Tensor | None, padding: Tensor | None, heads: Tensor) -> Tensor | None:
    """Return the sum of both masks, which torch's layer takes with true for what is hidden."""
    n_batch, n_heads = heads.shape[:2]
    shaped = []
    if attn is not None:
        shaped.append(attn.unflatten(0, (n_batch, n_heads)) if attn.dim() == 3 else attn)
    if padding is not None:
        shaped.append(padding[:, None, None, :])
    added = [
        torch.zeros(m.shape, dtype=heads.dtype, device=m.device).masked_fill_(m, -torch.inf)
        if m.dtype == torch.bool
        else m.to(heads.dtype)
        for m in shaped
    ]
    return sum(added[1:], added[0]) if added else None


def open_attention(network: nn.Module, blocks: nn.Module) -> None:
    """Put :class:`SelfAttention` in the place of every ``nn.MultiheadAttention`` in some blocks."""
    for layer in network.modules():
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False  # hooks do not see into these
    for name, layer in list(blocks.named_modules()):
        plain = isinstance(layer, nn.MultiheadAttention) and layer._qkv_same_embed_dim
        if plain and layer.bias_k is None and not layer.add_zero_attn:
            blocks.set_submodule(name, SelfAttention(layer))
