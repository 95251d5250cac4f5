"""Parameter groups of an optimizer, by the names of parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import nn

from cl_platform.errors import BadInput

if TYPE_CHECKING:
    from cl_platform.config.training import Optimizer


def grouped(
    module: nn.Module, trained: dict[str, nn.Parameter], config: Optimizer
) -> list[dict[str, Any]]:
    """Return parameters as torch's groups, with the settings of the first match of each name."""
    free = _without_decay(module, config.no_decay)
    found: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for name, p in trained.items():
        matching = (i for i, g in enumerate(config.groups) if g.pattern.search(own_name(name)))
        found.setdefault((next(matching, None), name in free), []).append(p)
    groups = []
    for (place, decays_not), parameters in found.items():
        settings: dict[str, Any] = {"weight_decay": 0.0} if decays_not else {}
        if place is not None:
            group = config.groups[place]
            settings["lr"] = group.lr or config.lr * (group.lr_scale or 1.0)
            settings |= group.model_extra or {}
        groups.append({"params": parameters, **settings})
    return groups


def _without_decay(module: nn.Module, kinds: Collection[str]) -> set[str]:
    """Return the names of biases and of all parameters of normalisation layers, as asked for."""
    names = [name for name, _ in module.named_parameters()]
    found = {name for name in names if "bias" in kinds and name.endswith("bias")}
    for prefix, part in module.named_modules():
        if "norm" in kinds and "norm" in type(part).__name__.lower():
            found |= {name for name, _ in part.named_parameters(prefix, recurse=False)}
    return found


def own_name(name: str) -> str:
    """Return the name of a parameter within its strategy, whatever is wrapped around that."""
    while name.startswith("inner."):
        name = name.removeprefix("inner.")
    return name


def check_groups(module: nn.Module, config: Optimizer) -> None:
    """Check that each parameter group matches a parameter, trained now or later.

    Raises:
        BadInput: names one that does not, and some parameters.
    """
    names = [own_name(name) for name, _ in module.named_parameters()]
    for i, group in enumerate(config.groups):
        if not any(group.pattern.search(name) for name in names):
            some = ", ".join(dict.fromkeys(names[:3] + names[-2:]))
            raise BadInput(
                f"optimizer.groups.{i}.match={group.match} is the name of no parameter; there are "
                f"{len(names)}, such as {some or 'none'}"
            )
