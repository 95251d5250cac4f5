"""Mixed precision: matrix products in bfloat16, what is summed or compared in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def computing(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a run computes; `precision` is float32 or bf16.

    Weights stay in float32. Their casts are not kept, since optimizer steps inside the context
    change them.
    """
    wanted = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=False)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer in float32 whatever the context: logits in bfloat16 would tie by the dozen."""
    with torch.autocast(x.device.type, enabled=False):
        output: Tensor = layer(x.float() if x.dtype == torch.bfloat16 else x)
        return output
