"""Content addresses: what decides the bits of a state is hashed into its key."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch


def digest(*parts: Any) -> str:
    """A sha256 (hex) over JSON-able values, in order; equal values give equal digests."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def array_digest(array: torch.Tensor | np.ndarray) -> str:
    """A sha256 (hex) over an array's type, shape and bytes."""
    data = array.cpu().numpy() if isinstance(array, torch.Tensor) else array
    state = hashlib.sha256(f"{data.dtype}{data.shape}".encode())
    for start in range(0, max(len(data), 1), 4096):  # in pieces: the array may be memory-mapped
        state.update(np.ascontiguousarray(data[start : start + 4096]).tobytes())
    return state.hexdigest()


def code_digest(obj: Any) -> str:
    """A sha256 over the source that decides what `obj` (a class or function) does.

    Covered are the modules of the object and of its base classes, and every module they import,
    as far as they belong to the object's own package, to this platform or to the user (outside the
    installed packages). The kernel is covered by :func:`kernel_digest`. Comments count: a state is
    never reused after an edit. The loaded bytecode counts too, since in a long session the file may
    be newer than what runs.
    """
    while isinstance(obj, partial):
        obj = obj.func
    root = obj.__module__.partition(".")[0]
    found: dict[str, str] = {}
    for owner in obj.__mro__ if inspect.isclass(obj) else (obj,):
        if _is_covered(owner.__module__, root):
            _collect(owner.__module__, root, found)
            found[owner.__qualname__] = digest(_bytecode_of(owner))
    return digest(sorted(found.items()))


@cache
def kernel_digest(*modules: str) -> str:
    """A sha256 over kernel modules and the kernel modules they import, and torch's version."""
    found: dict[str, str] = {}
    for module in modules:
        _collect(module, "cl_platform", found)
    return digest(sorted(found.items()), torch.__version__, np.__version__)


def _collect(module: str, root: str, found: dict[str, str]) -> None:
    """Add `module` and, recursively, what it imports to `found` (name -> source)."""
    path = None if module in found else _source_path(module)
    if path is None:
        return
    found[module] = source = path.read_text(encoding="utf-8")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for name in _imported_names(source, package):
        if _is_covered(name, root):
            _collect(name, root, found)


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


def _bytecode_of(owner: Any) -> list[Any]:
    members = vars(owner).values() if inspect.isclass(owner) else [owner]
    functions = [getattr(m, "__func__", m) for m in members]
    return [_bytecode(f.__code__) for f in functions if inspect.isfunction(f)]


def _bytecode(code: CodeType) -> list[Any]:
    def constant(value: Any) -> Any:
        if isinstance(value, CodeType):
            return _bytecode(value)
        return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

    constants = [constant(value) for value in code.co_consts]
    return [code.co_name, code.co_code.hex(), code.co_names, constants]


def _is_covered(module: str, root: str) -> bool:
    """Whether a module's source belongs into the digest of an object of the package `root`."""
    top = module.partition(".")[0]
    if top == root or top in ("streams", "strategies", "sweeps"):
        return True
    if top == "cl_platform" or top in sys.stdlib_module_names:
        return False
    installed = [sysconfig.get_path(p) for p in ("purelib", "platlib", "stdlib", "platstdlib")]
    path = _source_path(top) or _source_path(module)  # looking up `top` imports nothing
    return top == "__main__" or not (path and any(path.is_relative_to(i) for i in installed))
