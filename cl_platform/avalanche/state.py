"""The state of objects that were not made to be saved, as numbers, text and tensors; no pickle.

A state holds a table of objects as JSON ("graph") and the memory of their tensors. Objects that are
one remain one, cycles included, and tensors that share memory go on sharing it. Loading runs no
code: objects get their attributes back without a call of their constructor, and what they are is
looked up among the modules that are imported already.
"""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl_platform.avalanche.data import dataset_of_parts, is_dataset, parts_of
from cl_platform.errors import BadInput

State = dict[str, Any]
"""``graph``, a JSON text, and ``memory.0``, ``memory.1``, ...: uint8 tensors on the CPU."""

SCALARS = (bool, int, float, str)
LONG = 16  # integers in a list that is kept as a tensor
CONTAINERS: dict[str, Any] = {
    c.__name__: c for c in (list, tuple, set, frozenset, collections.deque)
}
MAPPINGS: dict[str, Any] = {
    c.__name__: c
    for c in (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
}
TENSORS: dict[str, Any] = {c.__name__: c for c in (Tensor, nn.Parameter, nn.Buffer)}
# Of the standard library, what may be named: nothing that runs a command or opens a file.
STANDARD = {"builtins": {"dict", "list", "set", "int", "float", "tuple"}, "random": {"Random"}}


def pack(root: Any, fresh: dict[str, Any]) -> State:
    """Return the state of an object and of all that can be reached from it.

    Args:
        fresh: what :func:`paths` gave of the object before it was used: what cannot be described
            (a function of a closure, a log) is referred to by its place there.

    Raises:
        BadInput: something can neither be described nor found there; the message says where it is.
    """
    return _Packer({id(value): path for path, value in fresh.items()}).state(root)


def unpack(state: State, fresh: dict[str, Any], device: torch.device) -> Any:
    """Return the object of a state.

    Args:
        fresh: what :func:`paths` gives of an object made anew in the same way; its parts are used
            where they are of the same class, so that closures over them stay right.
        device: where tensors go that were not on the CPU.
    """
    return _Unpacker(state, fresh, device).root()


def paths(root: Any) -> dict[str, Any]:
    """Return objects and functions that can be reached from an object, by dotted path."""
    found: dict[str, Any] = {}
    seen: dict[int, Any] = {}
    waiting = [("", root)]
    while waiting:
        path, value = waiting.pop()
        if (
            value is None
            or type(value) in SCALARS
            or isinstance(value, Tensor)
            or id(value) in seen
        ):
            continue
        seen[id(value)] = value
        if type(value) not in (*CONTAINERS.values(), *MAPPINGS.values()):
            found[path] = value
        waiting += [(f"{path}.{name}", part) for name, part in _parts(value)]
    return found


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(k), v) for k, v in value.items() if isinstance(k, str | int))
    elif isinstance(value, list | tuple):
        yield from ((str(i), v) for i, v in enumerate(value))
    elif not isinstance(value, type | types.ModuleType):
        yield "__class__", type(value)
        yield from getattr(value, "__dict__", {}).items()


def _named(name: str) -> Any:
    """Return the class or function ``module:qualname`` of an imported module, None if there is none
    that a state may name."""
    module, _, qualname = name.partition(":")
    top = module.partition(".")[0]
    standard = top in sys.stdlib_module_names and not module.startswith("collections")
    if module not in sys.modules or (standard and qualname not in STANDARD.get(module, ())):
        return None
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) or callable(found) else None


class _Packer:
    """Describes objects: a value is a scalar or ``[number of a node]``, a node ``[kind, ...]``."""

    def __init__(self, places: dict[int, str]) -> None:
        self.places = places
        self.nodes: list[Any] = []
        self.memory: list[Tensor] = []
        self._seen: dict[int, int] = {}
        self._held: list[Any] = []  # ids must stay their own
        self._storages: dict[tuple[str, int], int] = {}
        self._trail: list[str] = []

    def state(self, root: Any) -> State:
        top = self.value(root)
        graph = json.dumps({"root": top, "nodes": self.nodes}, separators=(",", ":"))
        return {"graph": graph, **{f"memory.{i}": m for i, m in enumerate(self.memory)}}

    def value(self, value: Any, name: str = "") -> Any:
        if value is None or type(value) in SCALARS:
            return value
        if id(value) not in self._seen:
            i = self._seen[id(value)] = len(self.nodes)
            self._held.append(value)
            self.nodes.append(None)
            self._trail.append(name)
            self.nodes[i] = self.node(value)
            self._trail.pop()
        return [self._seen[id(value)]]

    def values(self, items: Any) -> list[Any]:
        return [self.value(item, str(i)) for i, item in enumerate(items)]

    def node(self, value: Any) -> list[Any]:
        kind = type(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if kind is list and len(value) > LONG and all(type(item) is int for item in value):
            return ["integers", self.value(torch.tensor(value))]
        if kind in CONTAINERS.values():
            text = kind in (set, frozenset) and all(type(item) is str for item in value)
            # The order of text in a set differs from process to process.
            return ["container", kind.__name__, self.values(sorted(value) if text else value)]
        if kind in MAPPINGS.values():
            pairs = [[self.value(k, "key"), self.value(v, str(k)[:40])] for k, v in value.items()]
            return [
                "mapping",
                kind.__name__,
                self.value(getattr(value, "default_factory", None)),
                pairs,
            ]
        if is_dataset(value):
            return ["dataset", self.value(parts_of(value))]
        for known, describe in KINDS:
            if isinstance(value, known):
                return describe(self, value)
        if _is_plain(value):
            return self.object(value)
        return self.given(value)

    def tensor(self, tensor: Tensor) -> list[Any]:
        kind = next((n for n, c in TENSORS.items() if type(tensor) is c), None)
        if kind is None or tensor.layout is not torch.strided or tensor.is_quantized:
            return self.given(tensor)
        data, place = tensor.detach(), "cpu" if tensor.device.type == "cpu" else "device"
        storage = data.untyped_storage()
        key = (str(tensor.device), storage.data_ptr())
        if key not in self._storages or not storage.nbytes():
            self._storages[key] = len(self.memory)
            whole = torch.empty(0, dtype=torch.uint8, device=data.device).set_(storage)
            self.memory.append(whole.cpu().clone())
            self._held.append(storage)
        shape = [list(data.shape), list(data.stride()), data.storage_offset()]
        leaf = tensor.requires_grad and tensor.is_leaf
        return ["tensor", kind, self._storages[key], str(data.dtype)[6:], *shape, place, leaf]

    def object(self, value: Any) -> list[Any]:
        attributes = [[k, self.value(v, k)] for k, v in vars(value).items()]
        return [
            "object",
            self.value(type(value), "its class"),
            self.places.get(id(value)),
            attributes,
        ]

    def name(self, value: Any) -> list[Any]:
        """Describe a class or function by its name, if that leads to it."""
        for name in (f"{value.__module__}:{value.__qualname__}", f"torch:{value.__name__}"):
            if _named(name) is value:
                return ["name", name]
        return self.given(value)

    def generator(self, generator: Any) -> list[Any]:
        """Describe a generator that has not begun by its function and arguments."""
        frame = generator.gi_frame
        if inspect.getgeneratorstate(generator) != inspect.GEN_CREATED:
            return self.given(generator)
        name = f"{frame.f_globals['__name__']}:{generator.gi_code.co_qualname}"
        if getattr(_named(name), "__code__", None) is not generator.gi_code:
            return self.given(generator)
        return ["generator", name, self.value(dict(frame.f_locals))]

    def given(self, value: Any) -> list[Any]:
        if id(value) in self.places:
            return ["given", self.places[id(value)]]
        where = ".".join(filter(None, self._trail))[:200]
        raise BadInput(
            f"Avalanche's {where} is a {type(value).__module__}.{type(value).__qualname__}, which "
            "no state can hold: make it in the strategy's constructor, or drop it when an "
            "experience ends"
        )


def _is_plain(value: Any) -> bool:
    """Return whether an object's attributes are all there is to it."""
    kind = type(value)
    if isinstance(value, io.IOBase | types.ModuleType) or not hasattr(value, "__dict__"):
        return False
    in_python = all(c.__flags__ & (1 << 9) or c is object for c in kind.__mro__)  # heap types
    slots = any(
        set(c.__dict__.get("__slots__", ())) - {"__dict__", "__weakref__"} for c in kind.__mro__
    )
    return (
        in_python
        and not slots
        and kind.__module__.partition(".")[0] not in sys.builtin_module_names
    )


KINDS: tuple[tuple[Any, Callable[[_Packer, Any], list[Any]]], ...] = (
    (enum.Enum, lambda p, v: ["enum", p.value(type(v)), v.name]),
    (type | types.FunctionType | types.BuiltinFunctionType, _Packer.name),
    (torch.dtype | torch.device, lambda p, v: ["torch", type(v).__name__, str(v)]),
    (torch.Size, lambda p, v: ["size", list(v)]),
    (torch.Generator, lambda p, v: ["random", p.value(v.get_state())]),
    (np.generic, lambda p, v: ["number", v.dtype.str, v.item()]),
    (np.ndarray, lambda p, v: ["array", p.value(torch.from_numpy(v.copy()))]),
    (functools.partial, lambda p, v: ["partial", p.values((v.func, v.args, v.keywords))]),
    (types.MethodType, lambda p, v: ["method", p.value(v.__self__), v.__name__]),
    (types.GeneratorType, _Packer.generator),
)


class _Unpacker:
    """Makes the objects of a state; each of its methods makes those of one kind of node."""

    def __init__(self, state: State, fresh: dict[str, Any], device: torch.device) -> None:
        graph = json.loads(state["graph"])
        self.top, self.nodes = graph["root"], graph["nodes"]
        memory = (state[f"memory.{i}"] for i in range(len(state) - 1))
        self.memory = [m.clone() for m in memory]  # the state stays as it is
        self.on_device: dict[int, Tensor] = {}
        self.fresh, self.device = fresh, device
        self.made: dict[int, Any] = {}

    def root(self) -> Any:
        return self.value(self.top)

    def value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        (i,) = value
        if i not in self.made:
            kind, *parts = self.nodes[i]
            self.made[i] = getattr(self, f"_{kind}")(i, *parts)
        return self.made[i]

    def values(self, items: list[Any]) -> list[Any]:
        return [self.value(item) for item in items]

    def _integers(self, i: int, tensor: Any) -> list[int]:
        numbers: list[int] = self.value(tensor).tolist()
        return numbers

    def _container(self, i: int, kind: str, items: list[Any]) -> Any:
        if kind not in ("list", "deque"):
            return CONTAINERS[kind](self.values(items))
        made = self.made[i] = CONTAINERS[kind]()  # may hold itself
        made.extend(self.values(items))
        return made

    def _mapping(self, i: int, kind: str, factory: Any, pairs: list[Any]) -> Any:
        given = (self.value(factory),) if kind == "defaultdict" else ()
        made = self.made[i] = MAPPINGS[kind](*given)
        made.update((self.value(k), self.value(v)) for k, v in pairs)
        return made

    def _tensor(self, i: int, kind: str, m: int, dtype: str, *parts: Any) -> Tensor:
        shape, stride, offset, place, leaf = parts
        if m not in self.on_device:
            where = self.device if place == "device" else torch.device("cpu")
            self.on_device[m] = self.memory[m].to(where)
        memory = self.on_device[m]
        made = torch.empty(0, dtype=getattr(torch, dtype), device=memory.device)
        made.set_(memory.untyped_storage(), offset, shape, stride)
        if kind != "Tensor":
            made = TENSORS[kind](made)
        return made.requires_grad_(leaf)

    def _object(self, i: int, kind: Any, path: str | None, attributes: list[Any]) -> Any:
        cls = self.value(kind)
        made = self.fresh.get(path) if path is not None else None
        if type(made) is not cls:
            made = object.__new__(cls)
        self.made[i] = made
        values = {k: self.value(v) for k, v in attributes}
        vars(made).clear()
        vars(made).update(values)
        return made

    def _name(self, i: int, name: str) -> Any:
        found = _named(name)
        if found is None:
            raise BadInput(f"a stored state names {name!r:.200}, which is not there: train again")
        return found

    def _given(self, i: int, path: str) -> Any:
        if path not in self.fresh:
            raise BadInput(f"a stored state needs {path!r:.200} of the strategy's constructor")
        return self.fresh[path]

    def _enum(self, i: int, kind: Any, name: str) -> Any:
        return self.value(kind)[name]

    def _torch(self, i: int, kind: str, text: str) -> Any:
        if kind == "dtype":
            return getattr(torch, text.removeprefix("torch."))
        return self.device if text != "cpu" else torch.device("cpu")

    def _size(self, i: int, shape: list[int]) -> torch.Size:
        return torch.Size(shape)

    def _random(self, i: int, state: Any) -> torch.Generator:
        generator = torch.Generator()
        generator.set_state(self.value(state))
        return generator

    def _number(self, i: int, dtype: str, value: Any) -> Any:
        return np.dtype(dtype).type(value)

    def _array(self, i: int, tensor: Any) -> Any:
        return self.value(tensor).numpy()

    def _partial(self, i: int, parts: list[Any]) -> Any:
        function, arguments, keywords = self.values(parts)
        return functools.partial(function, *arguments, **keywords)

    def _method(self, i: int, owner: Any, name: str) -> Any:
        return getattr(self.value(owner), name)

    def _generator(self, i: int, name: str, arguments: Any) -> Any:
        return self._name(i, name)(**self.value(arguments))

    def _dataset(self, i: int, parts: Any) -> Any:
        return dataset_of_parts(self.value(parts))
