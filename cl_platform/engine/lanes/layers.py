"""Layers of stacked models, as batched matrix products with the bits of separate ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (
    _add_batch_dim,
    get_unwrapped,
    is_batchedtensor,
    maybe_get_bdim,
    maybe_get_level,
)
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.nn import functional
from torch.overrides import TorchFunctionMode


# Functions whose batching rules are missing or round otherwise: taken for one model after the other.
ONE_BY_ONE = (functional.binary_cross_entropy_with_logits, functional.kl_div)
PLAIN: tuple[dict[str, Any], ...] = ({}, {"reduction": "mean"})


class Stacked(TorchFunctionMode):
    """Inside ``torch.vmap`` over models: linear layers and cross-entropy take the quick way.

    The rules of torch add the bias in a pass of its own, which rounds otherwise, and lay out the
    gradient of the weights so that it has to be copied.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            if not kwargs and _batched(*args[:2]) and args[0].dim() > 1:
                return _whole(_linear, *args)
        elif func is functional.cross_entropy:
            if kwargs in PLAIN and len(args) == 2 and _batched(*args):
                return _whole(_mean_cross_entropy, *args)
        elif func in ONE_BY_ONE and _batched(*args):
            return _whole(partial(_one_by_one, partial(func, **kwargs)), *args)
        return func(*args, **kwargs)


def _batched(*tensors: Tensor) -> bool:
    """Return whether these are stacks of the same, and only, level."""
    return all(isinstance(t, Tensor) and is_batchedtensor(t) and not is_batchedtensor(get_unwrapped(t)) for t in tensors)


def _whole(function: Any, *tensors: Tensor | None) -> Tensor:
    """Return what a function of whole stacks gives, as one more stack."""
    level = next(maybe_get_level(t) for t in tensors if t is not None)
    with temporarily_pop_interpreter_stack():
        whole: Tensor = function(*map(_unwrapped, tensors))
    stack: Tensor = _add_batch_dim(whole, 0, level)
    return stack


def _unwrapped(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not is_batchedtensor(tensor):
        return tensor
    value: Tensor = get_unwrapped(tensor)
    return value.movedim(maybe_get_bdim(tensor), 0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return (L, ..., O) for inputs (L, ..., I), weights (L, O, I) and biases (L, O) or (O,)."""
    if bias is not None:
        bias = bias.expand(len(weight), -1)
    product: Tensor = _Linear.apply(x.flatten(1, -2), weight, bias)
    return product.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.mT)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            torch.bmm(outer, weight) if needs[0] else None,
            torch.bmm(outer.mT, x) if needs[1] else None,
            outer.sum(1) if needs[2] else None,
        )


def _mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (L,) for logits (L, B, C) and classes (L, B)."""
    each = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(len(logits), -1).mean(1)


def _one_by_one(function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    return torch.stack([function(*tensors) for tensors in zip(*stacks, strict=True)])
