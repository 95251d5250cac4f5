"""Optimizers that leave torch's compiler alone: to import it takes seconds.

torch exempts some of their methods from compilation when they are first called, and asks for a
break of the graph in every step, for which it imports ``torch._dynamo``. Where nobody has imported
that, nothing is compiled, and there is nothing to exempt. If torch does this in another way one
day, what is here has no effect.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache
from itertools import chain
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer, optimizer as hooks

MARK = "__dynamo_disable"  # where torch keeps the exempted form of a function


@cache
def exempt_without_compiler() -> None:
    """Have the methods of all optimizers called as they are, until the compiler is imported."""
    for method in vars(Optimizer).values():
        if inspect.isfunction(method) and method.__globals__["__name__"] == "torch._compile":
            function = inspect.unwrap(method)
            if not hasattr(function, MARK):
                setattr(function, MARK, _straight(method, function))


def _straight(method: Callable[..., Any], function: Any) -> Callable[..., Any]:
    def straight(*args: Any, **kwargs: Any) -> Any:
        if sys.modules.get("torch._dynamo") is None:
            return function(*args, **kwargs)
        vars(function).pop(MARK, None)  # from here on, torch does it
        return method(*args, **kwargs)

    return straight


def step_without_compiler(optimizer: Optimizer) -> None:
    """Have an optimizer take its steps without a break of the graph, and unseen by profilers.

    These take as long as the step of a small model itself. Its hooks are called as before, but for
    what they return.
    """
    plain = inspect.unwrap(type(optimizer).step)
    pre, post = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    every_pre, every_post = hooks._global_optimizer_pre_hooks, hooks._global_optimizer_post_hooks

    def step(optimizer: Optimizer, closure: None = None) -> None:
        for hook in chain(every_pre.values(), pre.values()):
            hook(optimizer, (), {})
        with torch.set_grad_enabled(optimizer.defaults.get("differentiable", False)):
            if not _descend(optimizer):
                plain(optimizer)
        for hook in chain(post.values(), every_post.values()):
            hook(optimizer, (), {})

    def zero_grad(optimizer: Optimizer, set_to_none: bool = True) -> None:
        if not set_to_none:
            Optimizer.zero_grad(optimizer, set_to_none)
            return
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    patched: Any = optimizer
    patched.step = MethodType(step, optimizer)  # which torch's schedules wrap
    patched.zero_grad = MethodType(zero_grad, optimizer)


BEYOND_DESCENT = ("momentum", "weight_decay", "maximize", "differentiable")


def _descend(optimizer: Optimizer) -> bool:
    """Take the step of plain SGD in one call, and return whether it was that: torch goes through
    lists for it that take as long as the step of a small model."""
    if type(optimizer) is not torch.optim.SGD:
        return False
    groups = optimizer.param_groups
    if any(group[name] for group in groups for name in BEYOND_DESCENT):
        return False
    for group in groups:
        trained = [p for p in group["params"] if p.grad is not None]
        if trained:
            torch._foreach_add_(trained, [p.grad for p in trained], alpha=-group["lr"])
    return True
