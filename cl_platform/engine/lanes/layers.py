"""Linear layers of several models on stacked weights, with the bits of single ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIGNED = 64  # bytes, as torch begins tensors
FEW = 400  # below so many multiplications torch takes a batched product by another way


@dataclass
class Stacked:
    """A parameter of all lanes.

    Args:
        values: (L, ...), a leaf, whose parts are the lanes' own parameters.
        gradient: (L, ...), of the last step.
        own: the lanes' own.
    """

    values: Tensor
    gradient: Tensor
    own: Sequence[Tensor]

    @classmethod
    def of(cls, own: Sequence[Tensor]) -> Stacked:
        """Stack the parameters of lanes, and make them views of the stack."""
        values, gradient = (_room(own[0].detach(), len(own)) for _ in range(2))
        for parameter, view in zip(own, values.unbind(), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        values.requires_grad_().grad = gradient.zero_()
        return cls(values, gradient, own)

    def link(self) -> None:
        """Give each lane its gradient."""
        for parameter, gradient in zip(self.own, self.gradient.unbind(), strict=True):
            parameter.grad = gradient

    def release(self) -> None:
        for parameter in self.own:
            parameter.data, parameter.grad = parameter.detach().clone(), None


class Layer:
    """The forward pass of a linear layer on the inputs of all lanes, one lane after the other."""

    def __init__(self, weight: Stacked, bias: Stacked | None) -> None:
        self.weight, self.bias = weight, bias
        self.lanes = len(weight.own)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.view(self.lanes, -1, x.shape[-1])
        own = None if self.bias is None else self.bias.values
        product: Tensor = _Product.apply(rows, self.weight.values, own)
        return product.view(*x.shape[:-1], product.shape[-1])


class _Product(torch.autograd.Function):
    """Return (L, B, O) for inputs (L, B, I), weights (L, O, I) and biases (L, O); the gradients of
    weights go where these keep them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.own = weight, bias
        result = x.new_empty(*x.shape[:2], weight.shape[1])
        if bias is None:
            return _multiply(x, weight.mT, result)
        if _few(x, weight.mT):
            for own, rows, part, into in zip(bias, x, weight.mT, result, strict=True):
                torch.addmm(own, rows, part, out=into)
            return result
        return torch.baddbmm(bias[:, None], x, weight.mT, out=result)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None, None]:
        (x,), (weight, bias) = ctx.saved_tensors, ctx.own
        values = weight.detach()
        _multiply(outer.mT, x, weight.grad)
        if bias is not None:
            torch.sum(outer, 1, out=bias.grad)
        room = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        return None if room is None else _multiply(outer, values, room), None, None


def _multiply(a: Tensor, b: Tensor, into: Tensor) -> Tensor:
    """Return (L, n, m) for (L, n, k) and (L, k, m)."""
    if not _few(a, b):
        return torch.bmm(a, b, out=into)
    for left, right, part in zip(a, b, into, strict=True):
        torch.mm(left, right, out=part)
    return into


def _few(a: Tensor, b: Tensor) -> bool:
    return a.shape[1] * a.shape[2] * b.shape[2] < FEW and not a.is_cuda


def _room(like: Tensor, lanes: int) -> Tensor:
    """Return an empty (L, ...) whose parts begin where tensors of their own would.

    The bits of a matrix product may depend on how its factors are aligned.
    """
    n, unit = like.numel(), ALIGNED // like.element_size()
    size = math.ceil(n / unit) * unit
    return like.new_empty(lanes, size)[:, :n].view(lanes, *like.shape)
