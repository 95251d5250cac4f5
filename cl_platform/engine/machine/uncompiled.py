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

    Its hooks are called as before, but for what they return.
    """
    plain = inspect.unwrap(type(optimizer).step)
    pre, post = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    every_pre, every_post = hooks._global_optimizer_pre_hooks, hooks._global_optimizer_post_hooks

    def step(optimizer: Optimizer, closure: None = None) -> None:
        for hook in chain(every_pre.values(), pre.values()):
            hook(optimizer, (), {})
        with torch.set_grad_enabled(optimizer.defaults.get("differentiable", False)):
            plain(optimizer)
        for hook in chain(post.values(), every_post.values()):
            hook(optimizer, (), {})

    patched: Any = optimizer
    patched.step = MethodType(step, optimizer)  # which torch's schedules wrap
