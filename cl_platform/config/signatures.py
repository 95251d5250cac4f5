"""Plugins from configurations: parameters are checked against the plugin's own signature."""

from __future__ import annotations

import dataclasses
import inspect
import traceback
import typing
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from cl_platform.config import registry
from cl_platform.config.registry import Kind
from cl_platform.errors import BadInput, ClpError, ConfigError, one_line

Section = dict[str, Any]
"""One plugin in a configuration: ``{"name": "er", "memory_size": 500}``."""

# What the kernel itself passes to a plugin, by kind: no parameters of a configuration.
CONTEXT: dict[Kind, tuple[str, ...]] = {"model": ("input_shape", "n_classes")}


def check_section(kind: Kind, section: Section, where: str) -> tuple[Section, list[str]]:
    """The section with every default filled in, and the faults found (one line each)."""
    try:
        plugin = registry.load(kind, section["name"])
    except BadInput as error:
        return section, [str(error)]
    try:
        model, inner = _parameters(kind, plugin)
    except (TypeError, ValueError) as error:
        return section, [f"{kind} {section['name']!r} cannot be called with parameters ({error})"]
    given = {k: v for k, v in section.items() if k != "name"}
    filled: Section = {}
    faults: list[str] = []
    try:
        filled = model.model_validate(given).model_dump()
    except ValidationError as error:
        faults = faults_of(error, model, where)
    for name in sorted(inner & filled.keys()):  # a strategy inside a strategy
        try:
            nested = _inner_section(kind, filled[name], model.model_fields[name])
        except BadInput as error:
            faults.append(f"{where}.{name}: {error}")
            continue
        filled[name], more = check_section(kind, nested, f"{where}.{name}")
        faults += more
    return {"name": section["name"], **filled}, faults


def object_faults(strategy: Any, where: str = "strategy") -> list[str]:
    """What is wrong with the hyper-parameters of a strategy that was made in Python."""
    plugin: Any = type(strategy)
    model, inner = _parameters("strategy", plugin)
    try:
        checked = model.model_validate(strategy.given)
    except ValidationError as error:
        return faults_of(error, model, where)
    faults = []
    for name, value in strategy.given.items():
        if name in inner and not hasattr(value, "given"):
            faults.append(f"{where}.{name}={value!r:.60}: expected a strategy object")
        elif name in inner:
            faults += object_faults(value, f"{where}.{name}")
        elif isinstance(value, str) and not isinstance(getattr(checked, name), str):
            faults.append(f"{where}.{name}={value!r} is text: expected {getattr(checked, name)!r}")
    return faults


def _inner_section(kind: Kind, value: Any, field: Any) -> Section:
    """The section of an inner plugin; parameters without a name are those of the default one."""
    default = field.default_factory() if field.default_factory else None
    if hasattr(value, "hyperparameters"):
        return {"name": registry.name_of(kind, type(value)), **value.hyperparameters()}
    if default is not None and isinstance(value, Mapping) and "name" not in value:
        value = {"name": registry.name_of(kind, type(default)), **value}
    return as_section(value)


def build(kind: Kind, section: Section, **context: Any) -> Any:
    """The plugin of a checked section, called with its parameters and the kernel's `context`.

    Raises:
        ConfigError: a name or parameter is wrong.
    """
    section, faults = check_section(kind, section, kind)
    if faults:
        raise ConfigError("\n".join(faults))
    plugin = registry.load(kind, section["name"])
    _, inner = _parameters(kind, plugin)
    values = {k: v for k, v in section.items() if k != "name"}
    for name in inner:
        values[name] = build(kind, values[name])
    try:
        return plugin(**context, **values)
    except ClpError:
        raise
    except Exception as error:  # a fault in a user's plugin
        raise BadInput(f"{kind} {section['name']!r} cannot be made: {blame(error)}") from error


def blame(error: BaseException) -> str:
    """An error in one line, with the place it comes from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(error)} ({Path(frame.filename).name}:{frame.lineno})"


def as_section(value: Any) -> Section:
    """A section from what people write: a name, or a mapping with a name."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    raise BadInput(f"{value!r} names nothing: give a name, or name=... with parameters")


def faults_of(error: ValidationError, model: type[BaseModel], where: str = "") -> list[str]:
    """One line per faulty key of a pydantic error: what was given, what is allowed."""
    by_key: dict[str, list[ErrorDetails]] = {}
    owners: dict[str, type[BaseModel]] = {}
    for fault in error.errors():
        path, owner = _path(fault["loc"], model)
        key = ".".join([where, *path] if where else path)
        by_key.setdefault(key, []).append(fault)
        owners[key] = owner
    return [_line(key, faults, owners[key]) for key, faults in by_key.items()]


def _path(
    location: Sequence[int | str], root: type[BaseModel]
) -> tuple[list[str], type[BaseModel]]:
    """The keys of a location, without what pydantic adds for the members of a union, and the model
    that the last of them belongs to."""
    path: list[str] = []
    model: type[BaseModel] | None = root
    owner = root
    for part in location:
        if model is None:
            break
        owner = model
        path.append(str(part))
        field = model.model_fields.get(str(part))
        options = [field.annotation, *typing.get_args(field.annotation)] if field else []
        models = [o for o in options if inspect.isclass(o) and issubclass(o, BaseModel)]
        model = models[0] if models else None
    return path, owner


def _line(key: str, faults: list[ErrorDetails], model: type[BaseModel]) -> str:
    first = faults[0]
    if first["type"] == "extra_forbidden":
        return f"{key} is unknown.{registry.suggestion(key.rpartition('.')[2], model.model_fields)}"
    if first["type"] == "missing":
        return f"{key} is missing: give --set {key}=VALUE"
    messages = dict.fromkeys(f["msg"].removeprefix("Value error, ") for f in faults)
    text = "; or ".join(m[0].lower() + m[1:] for m in messages)
    return " ".join(f"{key}={_short(first['input'])}: {text}".split())


@cache
def _parameters(kind: Kind, plugin: Any) -> tuple[type[BaseModel], set[str]]:
    """A pydantic model of a plugin's parameters, and the names of those that are plugins too."""
    if not callable(plugin):
        raise TypeError(f"it is {plugin!r:.40}, no class or function")
    hints = _type_hints(plugin)
    fields: dict[str, Any] = {}
    inner: set[str] = set()
    for name, parameter in inspect.signature(plugin).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in CONTEXT.get(kind, ()):
            continue
        hint = hints.get(name, Any)
        if _is_strategy(hint):
            inner.add(name)
            hint = Any
        fields[name] = (hint, _default(plugin, name, parameter.default))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model("Parameters", __config__=config, **fields), inner


def _default(plugin: Any, name: str, default: Any) -> Any:
    """What pydantic takes for a default: `...` stands for none."""
    field = getattr(plugin, "__dataclass_fields__", {}).get(name)
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if default is inspect.Parameter.empty else default


def _type_hints(plugin: Any) -> dict[str, Any]:
    while isinstance(plugin, partial):
        plugin = plugin.func
    is_record = hasattr(plugin, "__dataclass_fields__") or not inspect.isclass(plugin)
    try:
        return typing.get_type_hints(plugin if is_record else plugin.__init__, include_extras=True)
    except NameError:  # annotations that exist for the type checker only
        return {}


def _is_strategy(hint: Any) -> bool:
    if not inspect.isclass(hint):
        return False
    return any(c.__module__ == "cl_platform.core.strategy" for c in hint.__mro__)


def _short(value: Any, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _shown(kind: Kind, field: Any) -> str:
    default = field.get_default(call_default_factory=True)
    inner = hasattr(default, "hyperparameters")
    return registry.name_of(kind, type(default)) if inner else str(default)


def describe(kind: Kind, plugin: Any) -> dict[str, Any]:
    """The first line of a plugin's docstring, and its parameters with their defaults as text."""
    model, _ = _parameters(kind, plugin)
    documented = plugin
    while isinstance(documented, partial):
        documented = documented.func
    lines = (inspect.getdoc(documented) or "").splitlines()
    defaults = {
        name: "REQUIRED" if f.is_required() else _shown(kind, f)
        for name, f in model.model_fields.items()
    }
    return {"summary": lines[0] if lines else "", "parameters": defaults}
