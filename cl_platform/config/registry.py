"""Names to objects: everything a configuration can name is a plugin found through an entry point.

The platform's own streams, strategies, curricula, models and commands are registered in the same
way as those of third parties. ``module:Attribute`` and ``path/to/file.py:Attribute`` work without
registration.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from operator import attrgetter
from pathlib import Path
from pkgutil import extend_path
from types import ModuleType
from typing import Any, Literal

from cl_platform.config.given import given, is_given
from cl_platform.config.process import process_restored
from cl_platform.errors import BadInput, UnknownName, one_line

Kind = Literal[
    "stream",
    "strategy",
    "curriculum",
    "affinity",
    "pacing",
    "encoder",
    "model",
    "augmentation",
    "metric",
    "sink",
    "command",
]
SHORT = 160  # characters of names that a message shows
GROUPS: dict[Kind, str] = {
    "stream": "cl_platform.streams",
    "strategy": "cl_platform.strategies",
    "curriculum": "cl_platform.curricula",
    "affinity": "cl_platform.affinities",
    "pacing": "cl_platform.pacings",
    "encoder": "cl_platform.encoders",
    "model": "cl_platform.models",
    "augmentation": "cl_platform.augmentations",
    "metric": "cl_platform.metrics",
    "sink": "cl_platform.sinks",
    "command": "cl_platform.commands",
}
HOME = Path(__file__).parents[2]
OWN = ("strategies", "streams", "sweeps")  # common names: a user's folder may have them as well

# What other libraries call a strategy, in letters alone.
ELSEWHERE = {
    "derpp": "der++",
    "replay": "er",
    "sgd": "finetune",
    "naive": "finetune",
    "ewcon": "ewc",
    "jointtraining": "joint",
    "synapticintelligence": "si",
}
_named: dict[str, str] = {}  # modules that were loaded from a file, by its absolute path


@cache
def plugins(kind: Kind) -> dict[str, EntryPoint]:
    """Return the registered entry points of a kind by name, sorted; nothing is imported."""
    chosen = _entry_points().select(group=GROUPS[kind])
    return {e.name: e for e in sorted(chosen, key=lambda e: e.name)}


@cache  # all at once: each look reads a file of every installed package
def _entry_points() -> Any:
    return entry_points()


def load(kind: Kind, name: str) -> Any:
    """Return the object behind a registered name, ``module:Attribute`` or ``file.py:Attribute``.

    What a registered library has is named as ``library:NAME``; it is asked with ``named(NAME)``.

    Raises:
        UnknownName: no plugin has this name; the message suggests the nearest one.
        BadInput: the module, file or attribute cannot be imported.
    """
    library, colon, inside = name.partition(":")
    if is_given(name):
        return given(kind, name)
    if colon and name not in plugins(kind):
        shelf = plugins(kind).get(library)
        found: Any = _import(kind, shelf.value) if shelf else None
        return found.named(inside) if hasattr(found, "named") else _import(kind, name)
    entry = plugins(kind).get(name)
    if entry is None:
        if advice := _advice(kind, name):
            raise UnknownName(f"unknown {kind} {name!r}: {advice}")
        raise UnknownName(
            f"unknown {kind} {name!r}.{suggestion(name, plugins(kind), _listing(kind))} "
            "(or give module:Class or path/to/file.py:Class)"
        )
    return _import(kind, entry.value)


def name_of(kind: Kind, obj: Any) -> str:
    """Return the name that :func:`load` resolves to `obj`: registered if it has such a name."""
    module, attribute = obj.__module__, obj.__qualname__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file and (_named.get(file) == module or _is_shadowed(module, file)):
        return f"{_shortest(file)}:{attribute}"
    path = f"{module}:{attribute}"
    return next((n for n, e in plugins(kind).items() if e.value == path), path)


def suggestion(given: str, known: Iterable[str], listing: str = "") -> str:
    """Return `` Did you mean 'x'? Known: x, y``; the question only if a known name is close.

    Args:
        listing: a command that lists them, named in their place where they fill lines.
    """
    known = list(known)
    alias = ELSEWHERE.get(re.sub(r"[^a-z]", "", given.lower()))
    written = {_plain(name): name for name in reversed(known)}
    near = [alias] if alias in known else difflib.get_close_matches(_plain(given), written, n=1)
    hint = f" Did you mean {written.get(near[0], near[0])!r}?" if near else ""
    names = ", ".join(known) or "none"
    if listing and len(names) > SHORT:
        return f"{hint} `{listing}` lists the {len(known)} known ones"
    return f"{hint} Known: {names}"


def _listing(kind: Kind) -> str:
    return f"clp list {GROUPS[kind].rpartition('.')[2]}"


def _plain(name: str) -> str:
    """The name in lower case with hyphens: SplitMNIST and split_mnist are split-mnist."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _advice(kind: Kind, name: str) -> str:
    """What to give in place of a name that no plugin has."""
    if name.endswith(".py"):
        return f"name the class in the file as well: {name}:Class"
    if kind == "stream" and os.path.isdir(name):
        return f"{name} is a folder: give --stream folder --set stream.path={name}"
    return ""


def _import(kind: Kind, path: str) -> Any:
    where, _, attribute = path.rpartition(":")
    try:
        module = _of_file(where) if where.endswith(".py") else _of_name(where)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's module raises at its import, SystemExit too
        reason = f"{type(error).__name__}: {one_line(error, 300)}"
        raise BadInput(_refusal(kind, path, reason)) from error
    try:
        return attrgetter(attribute)(module)
    except Exception as error:
        raise BadInput(_refusal(kind, path, f"{where} has no attribute {attribute!r}")) from error


def _refusal(kind: Kind, path: str, reason: str) -> str:
    where, _, attribute = path.rpartition(":")
    top = where.partition(".")[0]
    hint = "give module:Class of a module that can be imported from here, or path/to/file.py:Class"
    if top in OWN and not where.endswith(".py"):
        file = f"{where.replace('.', '/')}.py:{attribute}"
        hint = f"{top} is a package of this platform; name a class of your own by its file: {file}"
    return f"{kind} {path!r} cannot be imported ({reason}); {hint}"


def _of_name(name: str) -> ModuleType:
    known = name in sys.modules or name.partition(".")[0] in ("cl_platform", *OWN)
    if name not in sys.modules:
        _extend_search_paths()
    with nullcontext() if known else process_restored():
        module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if _is_shadowed(name, file):
        raise ImportError(f"{file} was imported before under this name")
    return module


def _of_file(path: str) -> ModuleType:
    """Return the module of a file, made once.

    Its name depends on the path from the working folder, so that all processes of a sweep, and the
    machines of a cluster, agree on it. Modules beside the file can be imported, as in a script.
    """
    path = os.path.expanduser(path)
    file, folder = os.path.abspath(path), os.path.dirname(os.path.abspath(path))
    if _named.get(file) not in sys.modules:
        _extend_search_paths()
        if folder not in sys.path:
            sys.path.append(folder)
        digest = hashlib.sha256(_shortest(path).encode()).hexdigest()
        name = f"{re.sub(r'[^0-9a-zA-Z]', '_', Path(path).stem)}_{digest[:8]}"
        while name in sys.modules:  # the same path in another working folder
            name += "_"
        with process_restored():
            _execute(name, file)
        _named[file] = name
    return sys.modules[_named[file]]


def _execute(name: str, file: str) -> ModuleType:
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _extend_search_paths() -> None:
    """Make the user's modules importable, behind what is installed.

    A user's package with the name of one of ours shares that name: the modules of both are found,
    ours first. Otherwise the working folder, which ``python -m``, notebooks and Ray put first on
    the path, would decide what a registered name stands for.
    """
    if os.getcwd() not in sys.path:  # a console script does not search the user's own folder
        sys.path.append(os.getcwd())
    for name in OWN:
        ours = str(HOME / name)
        package = sys.modules.get(name) or _execute(name, f"{ours}/__init__.py")
        others = [p for p in getattr(package, "__path__", []) if p != ours]
        package.__path__ = extend_path([ours, *others], name)


@cache
def _is_shadowed(name: str, file: str | None) -> bool:
    """Whether a module of ours was imported from a user's file."""
    base = HOME.joinpath(*name.split("."))
    ours = [f for f in (base.with_suffix(".py"), base / "__init__.py") if f.exists()]
    own = name.partition(".")[0] in OWN
    return bool(own and ours and file and not os.path.samefile(ours[0], file))


def _shortest(path: str) -> str:
    """The path from the working folder if it is inside, else the absolute one."""
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith("..") else relative
