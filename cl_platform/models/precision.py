"""Mixed precision: matrix products in bfloat16, what is summed or compared in float32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
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
    x = x.float() if x.dtype == torch.bfloat16 else x
    output: Tensor
    if not torch.is_autocast_enabled(x.device.type):  # to enter a context takes ten times as long
        output = layer(x)
        return output
    with comparing(x.device):
        output = layer(x)
        return output


def cast_frozen_once(module: nn.Module) -> None:
    """Have the frozen linear and convolutional layers of a module keep their weights in bfloat16.

    What autocast would make of them at each call is the same, bit for bit; their own weights stay
    as they are, for all that reads them and for float32.
    """
    for layer in module.modules():
        if type(layer) in FORWARDS and "forward" not in vars(layer) and _is_frozen(layer):
            object.__setattr__(layer, "forward", _Cast(layer))


def _is_frozen(layer: nn.Module) -> bool:
    return not any(p.requires_grad for p in layer.parameters(recurse=False))


FORWARDS: dict[type, Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]] = {
    nn.Linear: lambda layer, x, weight, bias: linear(x, weight, bias),
    nn.Conv1d: nn.Conv1d._conv_forward,
    nn.Conv2d: nn.Conv2d._conv_forward,
}


class _Cast:
    """The forward pass of a frozen layer, which casts its weights when they have changed."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.made_of: list[tuple[int, int]] = []
        self.cast: list[Any] = []  # weight and bias

    def __call__(self, x: Tensor) -> Tensor:
        layer, kind = self.layer, x.device.type
        own = (layer.weight, layer.bias)
        if (
            not torch.is_autocast_enabled(kind)
            or torch.get_autocast_dtype(kind) != torch.bfloat16
            or not _is_frozen(layer)
            or type(layer.weight) is not nn.Parameter  # lent, by an export for instance
        ):
            return FORWARDS[type(layer)](layer, x, *own)
        made_of = [_version(p) for p in own if p is not None]
        if made_of != self.made_of:
            self.cast = [None if p is None else p.detach().bfloat16() for p in own]
            self.made_of = made_of
        return FORWARDS[type(layer)](layer, x, *self.cast)


def _version(p: Tensor) -> tuple[int, int]:
    return p.data_ptr(), 0 if p.is_inference() else p._version


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
