"""Names of plugins that a caller has in hand, so that they can stand where names do.

A name of this kind holds in the process that gave it, and in the workers that it sent it to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cl_platform.errors import UnknownName

PREFIX = "given:"
_objects: dict[str, Any] = {}


def give(name: str, plugin: Any) -> str:
    """Keep a plugin under a name of its own, and return the name that finds it."""
    _objects[f"{PREFIX}{name}"] = plugin
    return f"{PREFIX}{name}"


def given(kind: str, name: str) -> Any:
    """Return what was given under a name.

    Raises:
        UnknownName: nothing was, in this process.
    """
    if name not in _objects:
        raise UnknownName(
            f"{kind} {name!r} was an object or a class of a script, in another process: give it "
            "again in Python"
        )
    return _objects[name]


def is_given(name: str) -> bool:
    """Return whether a name is of this kind."""
    return name.startswith(PREFIX)


def names_given(value: Any) -> Iterator[str]:
    """Yield the names of this kind in a configuration."""
    if isinstance(value, str) and is_given(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names_given(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names_given(item)
