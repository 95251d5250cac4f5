"""Frozen modules: networks that are used and never changed."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Make a module a constant: without gradients, always in eval mode, in no state.

    Whoever restores a strategy from a state finds it as ``setup`` made it.
    """
    module.requires_grad_(False).eval()
    object.__setattr__(module, "train", partial(_as_it_is, module))  # the eval mode is for good
    module.register_state_dict_post_hook(_leave_out)
    return module


def _as_it_is(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
