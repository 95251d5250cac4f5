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
import tokenize
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from cl_platform.config.registry import OWN
from cl_platform.core.digests import array_digest, digest

# The kernel's code that plugins train with, if they import it. The rest of the kernel turns text
# into objects, keeps files, or shows results.
TRAINED_WITH = (
    "cl_platform.core.",
    "cl_platform.models.",
    "cl_platform.engine.optimization",
    "cl_platform.engine.training",
)
BOOKKEEPING = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__dataclass_fields__",
    "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__firstlineno__", "__slots__",
    "__static_attributes__", "__annotate__", "__annotations_cache__", "__signature__",
    "__slotnames__",  # which copying and pickling leave on a class
}  # fmt: skip


# By class or function, filled in workers alone: those whose source is not found there come with the
# digest of where they are from.
known_code: dict[Any, str] = {}


def code_digest(*objects: Any) -> str:
    """Return a sha256 (hex) over all code that decides what classes, functions or partials do.

    Covered are their own code, that of their bases, and whatever they refer to: helper functions,
    constants, closures, imported modules, and the kernel's modules that they train with (found
    behind the names of the facade ``cl_platform``). An installed package counts by its version.
    Comments count: a state is never reused after an edit.
    """
    read: dict[str, _Source | None] = {}
    parts: dict[int, str] = {}  # an object may be given several times
    for o in objects:
        if id(o) not in parts:
            known = known_code.get(o) if known_code else None
            parts[id(o)] = known or digest_of(o, read)
    return digest([parts[id(o)] for o in objects])


def digest_of(value: Any, read: dict[str, _Source | None] | None = None) -> str:
    """Return the part that one object has in :func:`code_digest`, computed anew.

    Args:
        read: the sources that were read just before, by module; more are added.
    """
    walk = _Walk()
    described = walk.describe(value)
    sources = _sources(walk.modules, {} if read is None else read)
    return digest(described, sorted(sources.items()))


@functools.cache
def kernel_digest(*modules: str) -> str:
    """Return a sha256 (hex) over the sources of exactly these modules, and the versions of torch
    and numpy."""
    sources = [(name, _text(Path(_source_path(name) or name))) for name in modules]
    return digest(sorted(sources), torch.__version__, np.__version__)


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
    """Return every global or attribute name that a function, or one inside it, uses."""
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
    """Return whether a module is user code, one of our plugins, or a network or the bridge to
    Avalanche of the kernel's."""
    top = module.partition(".")[0]
    if top in (*OWN, "__main__"):
        return True
    if top == "cl_platform" or top in sys.stdlib_module_names:
        return module.startswith(("cl_platform.models", "cl_platform.avalanche"))
    installed = [sysconfig.get_path(p) for p in ("purelib", "platlib", "stdlib", "platstdlib")]
    path = _source_path(top) or _source_path(module)  # looking up `top` imports nothing
    return not (path and any(path.is_relative_to(folder) for folder in installed))


class _Source(NamedTuple):
    """The text of a module, and the modules that it imports to train."""

    text: str
    imported: list[str]


def _sources(modules: Iterable[str], read: dict[str, _Source | None]) -> dict[str, str]:
    """Return the sources, by name, of modules and recursively of what they import to train."""
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if module not in read:
            read[module] = _source(module)
        if source := read[module]:
            found[module] = source.text
            waiting += source.imported
    return found


def _source(module: str) -> _Source | None:
    path = _source_path(module)
    if path is None:
        return None
    text = _text(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imported = _imported_names(text, package)
    return _Source(text, [n for n in imported if n.startswith(TRAINED_WITH) or _is_covered(n)])


def _text(path: Path) -> str:
    """Return a source as Python reads it: it may begin with a byte-order mark or a coding line."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):  # edited since its import
        return path.read_text(encoding="latin-1")


@functools.cache
def _imported_names(source: str, package: str) -> list[str]:
    """Return every module that `source` may import at run time; unknown ones are dropped later.

    A name of the facade stands for the module it comes from, since the facade imports none itself.
    """
    names: list[str] = []
    facade: set[str] = set()  # what `cl_platform` is called here
    attributes: list[ast.Attribute] = []
    waiting: list[ast.AST] = []
    with suppress(SyntaxError, ValueError):  # edited since its import: the text itself counts
        waiting.append(ast.parse(source))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
            facade |= {a.asname or a.name for a in node.names if a.name == "cl_platform"}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""] if node.level else [node.module or ""])
            base = base.strip(".")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            attributes += [node] if isinstance(node, ast.Attribute) else []
            waiting += ast.iter_child_nodes(node)
    names += [f"cl_platform.{a.attr}" for a in attributes if ast.unparse(a.value) in facade]
    return [_home(name) for name in names]


def _home(name: str) -> str:
    """Return the module behind a name of the facade; any other name as it is."""
    package, _, attribute = name.rpartition(".")
    homes = vars(sys.modules["cl_platform"])["HOMES"] if package == "cl_platform" else {}
    return f"cl_platform.{homes[attribute]}" if attribute in homes else name


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
