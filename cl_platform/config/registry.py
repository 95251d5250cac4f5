"""Names to objects: everything a configuration can name is a plugin found through an entry point.

The platform's own streams, strategies, curricula, models and commands take the same door as third
parties. A name of the form ``module:Attribute`` works without registration.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from cl_platform.errors import BadInput, UnknownName

Kind = Literal["stream", "strategy", "curriculum", "encoder", "model", "metric", "command"]
GROUPS: dict[Kind, str] = {
    "stream": "cl_platform.streams",
    "strategy": "cl_platform.strategies",
    "curriculum": "cl_platform.curricula",
    "encoder": "cl_platform.encoders",
    "model": "cl_platform.models",
    "metric": "cl_platform.metrics",
    "command": "cl_platform.commands",
}


@cache
def plugins(kind: Kind) -> dict[str, EntryPoint]:
    """The registered entry points of a kind by name, sorted; nothing is imported."""
    return {e.name: e for e in sorted(entry_points(group=GROUPS[kind]), key=lambda e: e.name)}


def load(kind: Kind, name: str) -> Any:
    """The object behind a registered name or a ``module:Attribute`` path.

    Raises:
        UnknownName: no plugin has this name; the message suggests the nearest ones.
        BadInput: the module or attribute cannot be imported.
    """
    if ":" in name:
        return _import(kind, name)
    entry = plugins(kind).get(name)
    if entry is None:
        raise UnknownName(
            f"unknown {kind} {name!r}.{suggestion(name, plugins(kind))} (or give module:Class)"
        )
    return _import(kind, entry.value)


def name_of(kind: Kind, obj: Any) -> str:
    """The name that :func:`load` resolves to `obj`: registered, else ``module:qualname``."""
    path = f"{obj.__module__}:{obj.__qualname__}"
    return next((n for n, e in plugins(kind).items() if e.value == path), path)


def suggestion(given: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'? Known: x, y`` for an unknown name (first part only if one is close)."""
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(known) or 'none'}"


def _import(kind: Kind, path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not see the user's own folder
        sys.path.append(os.getcwd())
    try:
        obj: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            obj = getattr(obj, part)
    except Exception as error:  # whatever a user's module raises while it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(
            f"{kind} {path!r} cannot be imported ({reason}); give module:Class of a module "
            "that can be imported from here"
        ) from error
    return obj
