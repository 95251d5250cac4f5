"""Layers of stacked models, with the bits of separate ones."""

from __future__ import annotations

import math
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

# Functions whose batching rules are missing or round otherwise: called for one model at a time.
ONE_BY_ONE = (
    functional.binary_cross_entropy_with_logits,
    functional.cross_entropy,
    functional.kl_div,
    functional.log_softmax,
    functional.mse_loss,
    functional.scaled_dot_product_attention,
    torch.log_softmax,
    Tensor.log_softmax,
    Tensor.softmax,
)
ALIGNED = 64  # bytes
torch._C._functorch._set_vmap_fallback_warning_enabled(  # type: ignore[attr-defined]
    False  # where a rule is missing, a loop over lanes is right
)


class Stacked(TorchFunctionMode):
    """Inside ``torch.vmap`` over models: layers and losses keep the bits of a single one.

    The rules of torch round otherwise than a single model does, and lay out the gradient of the
    weights so that it has to be copied.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            if not kwargs and _batched(*args[:2]) and args[0].dim() > 1:
                return _whole(_linear, *args)
        elif func in ONE_BY_ONE and _batched(*args):
            return _whole(partial(_one_by_one, partial(func, **kwargs)), *args)
        return func(*args, **kwargs)


def _batched(*tensors: Tensor) -> bool:
    """Return whether these are stacks of the same, and only, level."""
    return all(
        isinstance(t, Tensor) and is_batchedtensor(t) and not is_batchedtensor(get_unwrapped(t))
        for t in tensors
    )


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
            return _products(x, weight.mT)
        if x.is_cuda:
            return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        result = room(x, *x.shape[:2], weight.shape[1])
        rows = zip(bias.unbind(), _parts(x), _parts(weight.mT), result.unbind(), strict=True)
        for own, inputs, weights, into in rows:
            torch.addmm(own, inputs, weights, out=into)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            _products(outer, weight) if needs[0] else None,
            _products(outer.mT, x) if needs[1] else None,
            _sums(outer) if needs[2] else None,
        )


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return (L, n, m) for (L, n, k) and (L, k, m).

    On a CPU, batched products take as long as single ones, and round otherwise in some shapes.
    """
    if a.is_cuda:
        return torch.bmm(a, b)
    result = room(a, len(a), a.shape[1], b.shape[2])
    for left, right, into in zip(_parts(a), _parts(b), result.unbind(), strict=True):
        torch.mm(left, right, out=into)
    return result


def room(like: Tensor, *shape: int) -> Tensor:
    """Return an empty tensor of a shape whose parts [i] begin where tensors of their own would.

    The bits of a matrix product may depend on how its factors are aligned.
    """
    n, unit = math.prod(shape[1:]), ALIGNED // like.element_size()
    if n % unit == 0:
        return like.new_empty(shape)
    return like.new_empty(shape[0], -(-n // unit) * unit)[:, :n].view(shape)


def aligned(tensor: Tensor) -> bool:
    """Return whether a tensor begins where torch would let one of its own begin."""
    return tensor.data_ptr() % ALIGNED == 0


def _parts(a: Tensor) -> list[Tensor]:
    """Return a[i] for each i, copied where it is not aligned."""
    return [part if aligned(part) else part.clone() for part in a.unbind()]


def _sums(a: Tensor) -> Tensor:
    """Return (L, m) for (L, n, m)."""
    if a.is_cuda:
        return a.sum(1)
    result = a.new_empty(len(a), a.shape[2])
    for part, into in zip(a.unbind(), result.unbind(), strict=True):
        torch.sum(part, 0, out=into)
    return result


def _one_by_one(function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    return torch.stack([function(*tensors) for tensors in zip(*stacks, strict=True)])
