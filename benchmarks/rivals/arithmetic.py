"""What methods compute for every weight at each step, in as few passes over memory as it takes.

Each function is given the parameters and returns what is called between the backward pass and the
optimizer's step, and what after it; numbers that a method would have learned are arbitrary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Calls = tuple[Callable[[], None], Callable[[], None]]
Arithmetic = Callable[[Sequence[Tensor]], Calls]


def nothing() -> None:
    """Do nothing."""


def quadratic_penalty(parameters: Sequence[Tensor]) -> Calls:
    """1/2 sum importance (theta - anchor)^2 and its gradient: EWC, MAS and what is like them."""
    anchor, importance = _like(parameters, 1.0), _like(parameters, 0.1)

    def before() -> None:
        apart = torch._foreach_sub(parameters, anchor)
        pull = torch._foreach_mul(apart, importance)
        _product(pull, apart)
        torch._foreach_add_(_gradients(parameters), pull)

    return before, nothing


def path_integral(parameters: Sequence[Tensor]) -> Calls:
    """The penalty, and the integral of the gradient over the step: SI."""
    penalty, _ = quadratic_penalty(parameters)
    old, slopes, path = (_like(parameters, 0.0) for _ in range(3))

    def before() -> None:
        penalty()
        torch._foreach_copy_(old, parameters)
        torch._foreach_copy_(slopes, _gradients(parameters))

    def after() -> None:
        torch._foreach_sub_(old, parameters)
        torch._foreach_addcmul_(path, old, slopes)

    return before, after


def moments_by_task(parameters: Sequence[Tensor], tasks: int = 3) -> Calls:
    """Both moments of the present task, those of all tasks weighted by how they agree: TAG."""
    # Of about unit length, as the method has them: else the steps would leave all numbers.
    first = [torch.rand(tasks, p.numel()) / p.numel() ** 0.5 for p in parameters]
    second = [torch.rand(tasks, p.numel()) for p in parameters]

    def before() -> None:
        gradients = [g.flatten() for g in _gradients(parameters)]
        m, v = [f[-1] for f in first], [s[-1] for s in second]
        torch._foreach_lerp_(m, gradients, 0.1)
        torch._foreach_mul_(v, 0.99)
        torch._foreach_addcmul_(v, gradients, gradients, value=0.01)
        weights = [(f @ f[-1]).neg_().exp_() for f in first]
        roots = [w @ s for w, s in zip(weights, second, strict=True)]
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, 1e-8)
        flat = [p.detach().flatten() for p in parameters]
        torch._foreach_addcdiv_(flat, gradients, roots, value=-1e-4)
        for p in parameters:
            p.grad = None  # the optimizer's step is taken

    return before, nothing


def drift(parameters: Sequence[Tensor]) -> Calls:
    """A step up the gradient by a factor for each weight: refresh learning without noise."""
    factors = _like(parameters, 1e-6)

    def before() -> None:
        torch._foreach_addcmul_(parameters, _gradients(parameters), factors)

    return before, nothing


def noise(parameters: Sequence[Tensor]) -> Calls:
    """The same, and noise: refresh learning."""
    move, _ = drift(parameters)
    spread = _like(parameters, 1e-6)

    def before() -> None:
        move()
        random = [torch.empty_like(p).normal_() for p in parameters]
        torch._foreach_addcmul_(parameters, random, spread)

    return before, nothing


def outgoing_weights(parameters: Sequence[Tensor]) -> Calls:
    """The sum of the weights behind every hidden unit: continual backpropagation."""
    behind = [p.detach() for p in parameters if p.dim() > 1][1:]

    def after() -> None:
        for weight in behind:
            weight.abs().sum([d for d in range(weight.dim()) if d != 1])

    return nothing, after


def virtual_step(parameters: Sequence[Tensor]) -> Calls:
    """Copies of the weights, moved along their gradients: maximally interfered retrieval."""

    def before() -> None:
        pairs = zip(parameters, _gradients(parameters), strict=True)
        for p, g in pairs:
            torch.sub(p, g, alpha=1e-4)

    return before, nothing


def scaled_drift(parameters: Sequence[Tensor]) -> Calls:
    """The same along a direction of each tensor's own length: the authors' code of refresh."""
    move, _ = drift(parameters)

    def before() -> None:
        gradients = _gradients(parameters)
        lengths = zip(torch._foreach_norm(parameters), torch._foreach_norm(gradients), strict=True)
        torch._foreach_mul_(gradients, [own / (other + 1e-20) for own, other in lengths])
        move()

    return before, nothing


def constraints(parameters: Sequence[Tensor], tasks: int = 2) -> Calls:
    """The gradients of past tasks in rows, their products, and a sum of them: GEM."""
    sizes = [p.numel() for p in parameters]
    rows = torch.rand(tasks, sum(sizes))
    weights = torch.full((tasks,), 1e-6)

    def before() -> None:
        gradients = _gradients(parameters)
        for row in rows:
            parts = zip(row.split(sizes), parameters, strict=True)
            torch._foreach_copy_([part.view_as(p) for part, p in parts], gradients)
        flat = torch.cat([g.flatten() for g in gradients])
        rows @ flat
        rows @ rows.T
        flat.addmv_(rows.T, weights)
        for part, p in zip(flat.split(sizes), parameters, strict=True):
            p.grad = part.view_as(p)

    return before, nothing


def projection(parameters: Sequence[Tensor]) -> Calls:
    """Two products of gradients, and one moved along the other: A-GEM."""
    reference = _like(parameters, 0.1)

    def before() -> None:
        gradients = _gradients(parameters)
        _product(gradients, reference)
        _product(reference, reference)
        torch._foreach_mul_(reference, 1.0)
        torch._foreach_sub_(gradients, reference)

    return before, nothing


def _product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    dots = [torch.dot(u.flatten(), v.flatten()) for u, v in zip(a, b, strict=True)]
    return torch.stack(dots).sum()


def _like(parameters: Sequence[Tensor], value: float) -> list[Tensor]:
    return [torch.full_like(p, value, requires_grad=False) for p in parameters]


def _gradients(parameters: Sequence[Tensor]) -> list[Any]:
    return [p.grad for p in parameters]
