"""Mixed precision: matrix products in bfloat16, what is summed or compared in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


def computing(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a run computes; `precision` is float32 or bf16.

    Weights stay in float32. Their casts are not kept, since optimizer steps inside the context
    change them.
    """
    wanted = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=False)


def comparing(device: torch.device) -> torch.autocast:
    """Return the context for products that are compared or summed: float32 in any precision."""
    return torch.autocast(device.type, enabled=False)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a layer in float32 whatever the context: logits in bfloat16 would tie by the dozen."""
    with comparing(x.device):
        output: Tensor = layer(x.float() if x.dtype == torch.bfloat16 else x)
        return output


def attending(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context for attention that is trained through; it changes bfloat16 on a CPU only.

    There, the gradient of torch's fused attention takes five times as long as in float32.
    """
    slow = device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    return _AttentionInFloat32() if slow else nullcontext()


class _AttentionInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            query, key, value = (x.float() for x in args)
            mask = kwargs.get("attn_mask")
            if mask is not None and mask.is_floating_point():
                kwargs = {**kwargs, "attn_mask": mask.float()}
            return func(query, key, value, **kwargs).to(args[0].dtype)
