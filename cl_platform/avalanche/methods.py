"""Strategies and plugins of Avalanche by name, and whether their arguments fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from cl_platform.avalanche.data import quiet
from cl_platform.config.registry import load, suggestion
from cl_platform.config.signatures import as_section, blame
from cl_platform.errors import BadInput, ClpError

# What the run gives to a strategy: it is no argument of a configuration.
FROM_RUN = (
    *("model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size"),
    *("device", "evaluator", "plugins", "eval_every", "peval_mode"),
)
PLAIN: dict[Any, Any] = {int: int, float: int | float}  # what annotations of numbers take
INSTALL = "strategy avalanche needs avalanche-lib: pip install 'cl-platform[avalanche]'"


def strategies() -> dict[str, type]:
    """Return Avalanche's strategies for supervised learning by name."""
    try:
        with quiet():
            from avalanche.training import supervised, templates
    except ImportError as error:
        raise BadInput(f"{INSTALL} ({error})") from error
    base = templates.SupervisedTemplate
    found = {
        n: c for n, c in vars(supervised).items() if inspect.isclass(c) and issubclass(c, base)
    }
    return {n: c for n, c in sorted(found.items()) if not n.endswith("Template")}


def plugins() -> dict[str, type]:
    """Return Avalanche's plugins for supervised learning by name."""
    strategies()  # imports it
    from avalanche.core import SupervisedPlugin
    from avalanche.training import plugins as module

    found = {n: c for n, c in vars(module).items() if inspect.isclass(c)}
    return {n: c for n, c in sorted(found.items()) if issubclass(c, SupervisedPlugin)}


def method_of(name: str) -> type:
    """Return a strategy of Avalanche.

    Raises:
        BadInput: there is none of this name; the message suggests the nearest one.
    """
    known = strategies()
    if name not in known:
        raise BadInput(f"strategy.method={name!r} is unknown.{suggestion(name, known)}"[:480])
    return known[name]


def plugin_of(section: Any) -> tuple[type, dict[str, Any]]:
    """Return the class and the arguments of ``ReplayPlugin``, ``{name: EWCPlugin, ewc_lambda: 1}``,
    or of a plugin of the user's own, ``path/to/file.py:Class``.

    Raises:
        BadInput: there is none of this name.
    """
    arguments = as_section(section)
    name = arguments.pop("name")
    if ":" in name:
        return load("strategy", name), arguments
    known = plugins()
    if name not in known:
        raise BadInput(
            f"plugin {name!r} of strategy.plugins is unknown.{suggestion(name, known)}"[:480]
        )
    return known[name], arguments


def argument_faults(made: Any, arguments: Mapping[str, Any], where: str) -> list[str]:
    """Return what is wrong with the arguments of a class, one line each."""
    parameters = inspect.signature(made.__init__).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    known = {p.name: p for p in named if p.name not in ("self", *FROM_RUN)}
    faults = []
    for name, value in arguments.items():
        if name not in known:
            faults.append(f"{where}.{name} is unknown.{suggestion(name, known)}")
        elif not isinstance(value, PLAIN.get(known[name].annotation, object)):
            kind = known[name].annotation.__name__
            faults.append(f"{where}.{name}={value!r:.60}: {made.__name__} takes a number ({kind})")
    needed = [n for n, p in known.items() if p.default is p.empty and n not in arguments]
    return faults + [f"{where}.{n} is missing: {made.__name__} needs it" for n in needed]


def make(cls: Any, arguments: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
    """Return an object of a class or of a function, with what it takes of the run.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        parameters = inspect.signature(cls).parameters
        everything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        taken = {n: v for n, v in run.items() if n in parameters or everything}
        with quiet():
            return cls(**taken, **arguments)
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:
        name = getattr(cls, "__name__", repr(cls))
        given = " ".join(f"{k}={v!r:.40}" for k, v in arguments.items())
        raise BadInput(
            f"Avalanche's {name} cannot be made with {given or 'no arguments'}: {blame(error)}"
        ) from error


def names(sections: Iterable[Any]) -> list[str]:
    """Return the names of plugins that are the user's own."""
    found = (as_section(section)["name"] for section in sections)
    return [name for name in found if ":" in name]
