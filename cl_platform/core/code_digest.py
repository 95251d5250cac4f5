"""A digest of code: of its source, and of what is loaded, with everything it refers to.

Both are needed. The source covers what is imported later; what is loaded covers sessions in which a
file was edited after its import, functions without a file (notebooks), closures and partials.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from cl_platform.core.digests import array_digest, digest

OWN = ("streams", "strategies", "sweeps")
BOOKKEEPING = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__dataclass_fields__",
    "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__firstlineno__", "__slots__",
    "__static_attributes__", "__annotate__", "__annotations_cache__", "__signature__",
}  # fmt: skip


def code_digest(*objects: Any) -> str:
    """A sha256 over what decides what the objects (classes, functions, partials) do.

    Covered are their own code, that of their bases and of everything user-written that they refer
    to: helper functions, constants, closures, imported modules. An installed package is identified
    by its version; the kernel by :func:`kernel_digest`. Comments count: a state is never reused
    after an edit.
    """
    walk = _Walk()
    described = [walk.describe(o) for o in objects]
    return digest(described, sorted(_sources(walk.modules).items()))


@functools.cache
def kernel_digest(*modules: str) -> str:
    """A sha256 over kernel modules and the kernel modules they import, and torch's version."""
    sources = _sources(modules, kernel=True)
    return digest(sorted(sources.items()), torch.__version__, np.__version__)


class _Walk:
    """Describes objects as JSON-able values; notes the user-written modules it met."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._seen: dict[int, tuple[Any, str]] = {}  # the object is held: ids must stay its own

    def describe(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str | bytes | complex):
            return repr(value)
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, list | tuple):
            return [self.describe(v) for v in value]
        if isinstance(value, set | frozenset):
            return sorted(digest(self.describe(v)) for v in value)
        if isinstance(value, torch.Tensor | np.ndarray):
            return array_digest(value)
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        self._seen[id(value)] = (value, f"seen {len(self._seen)}")
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, dict):
            return [[repr(k), self.describe(value[k])] for k in sorted(value, key=repr)]
        if isinstance(value, functools.partial):
            return [self.describe(part) for part in (value.func, value.args, value.keywords)]
        if isinstance(value, property):
            return [self.describe(f) for f in (value.fget, value.fset, value.fdel)]
        if isinstance(value, functools.cached_property):
            return self.describe(value.func)
        if inspect.ismethod(value) or isinstance(value, staticmethod | classmethod):
            return self.describe(value.__func__)
        if inspect.isfunction(value):
            return self._function(value)
        if inspect.isclass(value):
            return self._class(value)
        if isinstance(value, ModuleType):
            return self._module(value)
        # An instance: its class, and its attributes if they can be described.
        attributes = vars(value) if hasattr(value, "__dict__") and _is_user(type(value)) else {}
        return [self.describe(type(value)), self.describe(dict(attributes))]

    def _function(self, function: Any) -> Any:
        cells = [c.cell_contents for c in function.__closure__ or () if _is_filled(c)]
        description = [function.__qualname__, [self.describe(c) for c in cells]]
        if not _is_user(function):
            return [function.__module__, *description, _version(function)]
        self.modules.add(function.__module__)
        names = sorted(_names(function.__code__) & function.__globals__.keys())
        referred = [[n, self.describe(function.__globals__[n])] for n in names]
        defaults = [self.describe(function.__defaults__), self.describe(function.__kwdefaults__)]
        return [*description, self._code(function.__code__), defaults, referred]

    def _class(self, cls: type) -> Any:
        if not _is_user(cls):
            return [cls.__module__, cls.__qualname__, _version(cls)]
        self.modules.add(cls.__module__)
        bases = [self.describe(base) for base in cls.__bases__]
        members = sorted(vars(cls).items())
        own = [[n, self.describe(member)] for n, member in members if n not in BOOKKEEPING]
        return [cls.__qualname__, bases, own]

    def _module(self, module: ModuleType) -> Any:
        if not _is_covered(module.__name__):
            return module.__name__
        self.modules.add(module.__name__)
        members = sorted((n, v) for n, v in vars(module).items() if not n.startswith("__"))
        return [[name, self.describe(value)] for name, value in members]

    def _code(self, code: CodeType) -> Any:
        constants = [self.describe(value) for value in code.co_consts]
        return [code.co_name, code.co_code.hex(), code.co_names, constants]


def _names(code: CodeType) -> set[str]:
    """Every global or attribute name that a function, or one inside it, uses."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty cell raises)
    except ValueError:
        return False
    return True


def _is_user(obj: Any) -> bool:
    return _is_covered(getattr(obj, "__module__", None) or "builtins")


def _version(obj: Any) -> str:
    package = sys.modules.get(obj.__module__.partition(".")[0])
    return str(getattr(package, "__version__", ""))


@functools.cache
def _is_covered(module: str) -> bool:
    """Whether a module is the user's own or this platform's, outside the kernel."""
    top = module.partition(".")[0]
    if top in (*OWN, "__main__"):
        return True
    if top == "cl_platform" or top in sys.stdlib_module_names:
        # Models are plugins that happen to live beside the kernel.
        return module.startswith("cl_platform.models")
    installed = [sysconfig.get_path(p) for p in ("purelib", "platlib", "stdlib", "platstdlib")]
    path = _source_path(top) or _source_path(module)  # looking up `top` imports nothing
    return not (path and any(path.is_relative_to(folder) for folder in installed))


def _sources(modules: Iterable[str], kernel: bool = False) -> dict[str, str]:
    """The source of modules and, recursively, of the covered modules they import, by name."""
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        module = waiting.pop()
        path = None if module in found else _source_path(module)
        if path is None:
            continue
        found[module] = source = path.read_text(encoding="utf-8")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in _imported_names(source, package):
            mine = name.partition(".")[0] == "cl_platform" if kernel else _is_covered(name)
            waiting += [name] * mine
    return found


@functools.cache
def _imported_names(source: str, package: str) -> list[str]:
    """Every module an ``import`` anywhere in `source` may load; unknown ones are dropped later."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""] if node.level else [node.module or ""])
            base = base.strip(".")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _source_path(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, AttributeError, ValueError):
            return None  # `from x import y` where y is no module
        origin = spec.origin if spec else None
    path = Path(origin) if origin else None
    return path if path and path.suffix == ".py" and path.exists() else None
