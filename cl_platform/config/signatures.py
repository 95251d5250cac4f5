"""Plugins from configurations: parameters are checked against the plugin's own signature.

A parameter may be a plugin itself: its annotation is then a class with an attribute `plugin_kind`.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import traceback
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cl_platform.config import registry
from cl_platform.config.registry import Kind
from cl_platform.errors import BadInput, ClpError, ConfigError, one_line

Section = dict[str, Any]
"""One plugin in a configuration: ``{"name": "er", "memory_size": 500}``."""

# Arguments that the kernel passes to a plugin, by kind: they are not in a configuration.
CONTEXT: dict[Kind, tuple[str, ...]] = {
    "model": ("input_shape", "n_classes"),
    "sink": ("out",),
}
# Fields of what a plugin makes that a configuration may set, besides the plugin's own parameters.
FIELDS: dict[Kind, dict[str, Any]] = {"stream": {"open": bool}}

ONE, SEVERAL = "<one>", "<several>"  # tags of unions of a value and a list of such


def check_section(
    kind: Kind, section: Section, where: str, plugin: Any = None
) -> tuple[Section, list[str]]:
    """Return the section with every default filled in, and the faults found, one line each.

    Args:
        plugin: what the section is of; None loads it by the section's name.
    """
    try:
        plugin = plugin or registry.load(kind, section["name"])
    except BadInput as error:
        return section, [str(error)]
    try:
        model, nested = _parameters(kind, plugin)
    except (TypeError, ValueError) as error:
        return section, [f"{kind} {section['name']!r} cannot be called with parameters ({error})"]
    given = {k: v for k, v in section.items() if k != "name"}
    filled: Section = {}
    faults: list[str] = []
    try:
        filled = model.model_validate(given).model_dump()
    except ValidationError as error:
        faults = faults_of(error, model, where)
    for name in sorted(nested.keys() & filled.keys()):
        try:
            value = given.get(name, filled[name])  # as given: pydantic takes records apart
            inner = _nested_section(nested[name], value, model.model_fields[name])
        except BadInput as error:
            faults.append(f"{where}.{name}: {error}")
            continue
        filled[name], more = check_section(nested[name].plugin_kind, inner, f"{where}.{name}")
        faults += more
    return {"name": section["name"], **_set(kind, filled)}, faults


def checked(kind: Kind, plugin: Any, given: Section) -> Section:
    """Return the parameters of a plugin that is called in Python, with every default filled in.

    Raises:
        ConfigError: some are wrong; one line per fault.
    """
    model, _ = _parameters(kind, plugin)
    try:
        return _set(kind, model.model_validate(given).model_dump())
    except ValidationError as error:
        raise ConfigError("\n".join(faults_of(error, model, kind))) from error


def _set(kind: Kind, values: dict[str, Any]) -> dict[str, Any]:
    """Return parameters without those of the made object's fields that were not set."""
    unset = [name for name in FIELDS.get(kind, {}) if not values.get(name)]
    return {k: v for k, v in values.items() if k not in unset}


def call(kind: Kind, plugin: Any, values: Mapping[str, Any], **context: Any) -> Any:
    """Call a plugin with checked parameters; what it made gets the fields among them."""
    fields = {name: values[name] for name in FIELDS.get(kind, {}) if name in values}
    made = plugin(**context, **{k: v for k, v in values.items() if k not in fields})
    return dataclasses.replace(made, **fields) if fields else made


def object_faults(strategy: Any, where: str = "strategy") -> list[str]:
    """Return what is wrong with the hyper-parameters of a strategy made in Python, line by line."""
    plugin: Any = type(strategy)
    model, nested = _parameters(strategy.plugin_kind, plugin)
    try:
        checked = model.model_validate(strategy.given)
    except ValidationError as error:
        return faults_of(error, model, where)
    faults = []
    for name, value in strategy.given.items():
        key, base = f"{where}.{name}", nested.get(name)
        if base is not None and isinstance(value, base):
            faults += object_faults(value, key)
        elif base is not None:
            faults.append(f"{key}={value!r:.60}: expected a {base.plugin_kind} object")
        elif isinstance(value, str) and not isinstance(getattr(checked, name), str):
            faults.append(f"{key}={value!r} is text: expected {getattr(checked, name)!r}")
    return faults


def _nested_section(base: Any, value: Any, field: Any) -> Section:
    """The section of a nested plugin; parameters without a name are those of the default one."""
    kind, default = base.plugin_kind, field.get_default(call_default_factory=True)
    if isinstance(value, base) and not hasattr(value, "hyperparameters"):
        raise BadInput(f"a {kind} object has no name: give what is around it as an object, too")
    if isinstance(value, base):
        return {"name": registry.name_of(kind, type(value)), **value.hyperparameters()}
    if isinstance(default, base) and isinstance(value, Mapping) and "name" not in value:
        value = {"name": registry.name_of(kind, type(default)), **value}
    return as_section(value)


def build(kind: Kind, section: Section, **context: Any) -> Any:
    """Check a section, and build its plugin as :func:`instantiate` does.

    Raises:
        ConfigError: a name or parameter is wrong; one line per fault.
    """
    section, faults = check_section(kind, section, kind)
    if faults:
        raise ConfigError("\n".join(faults))
    return instantiate(kind, section, **context)


def instantiate(kind: Kind, section: Section, **context: Any) -> Any:
    """Call the plugin of a checked, complete section with its parameters and the `context`.

    Raises:
        BadInput: the plugin raised an error that is not one of this platform's.
    """
    plugin = registry.load(kind, section["name"])
    values = {k: copy.deepcopy(v) for k, v in section.items() if k != "name"}
    for name, base in _parameters(kind, plugin)[1].items():
        values[name] = instantiate(base.plugin_kind, values[name])
    try:
        return call(kind, plugin, values, **context)
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a fault in a user's plugin
        raise BadInput(f"{kind} {section['name']!r} cannot be made: {blame(error)}") from error


def blame(error: BaseException) -> str:
    """Return an error in one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if "torch" not in Path(f.filename).parts]
    frame = (outside or frames)[-1]  # the line that called torch says more
    what = f"{type(error).__name__}: {one_line(error)} ({Path(frame.filename).name}:{frame.lineno})"
    unset = isinstance(error, AttributeError) and error.name in ("info", "model")
    return f"{what}; a strategy's setup begins with super().setup(info)" if unset else what


def names_in(section: Mapping[str, Any]) -> list[str]:
    """Return the name of a plugin and of those inside it."""
    inner = [v for v in section.values() if isinstance(v, Mapping) and "name" in v]
    return [section["name"], *(name for v in inner for name in names_in(v))]


def as_section(value: Any) -> Section:
    """Return the section of a name, or of a mapping with a name and parameters.

    Raises:
        BadInput: there is no name in it.
    """
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    hint = "give a name, or name=... with parameters"
    if type(value).__module__ != "builtins":  # a data set or a benchmark
        hint += "; data become a stream by Stream.from_arrays, from_dataset or from_avalanche"
    raise BadInput(f"{value!r} names nothing: {hint}")


def faults_of(error: ValidationError, model: type[BaseModel], where: str = "") -> list[str]:
    """Return one line for each faulty key of a pydantic error: what was given, what is allowed."""
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
        if part in (ONE, SEVERAL):
            continue
        owner = model
        path.append(str(part))
        if isinstance(part, int):  # of a list: its items are of the same model
            continue
        field = model.model_fields.get(str(part))
        model = model_of(field) if field else None
    return path, owner


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the pydantic model that a field holds, if it holds one; it may be optional."""
    options = [field.annotation, *typing.get_args(field.annotation)]
    options = [typing.get_args(o)[0] if hasattr(o, "__metadata__") else o for o in options]
    return next((o for o in options if inspect.isclass(o) and issubclass(o, BaseModel)), None)


def hint_for(key: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown setting: the nearest known one, or where it may belong."""
    known = list(known)
    hint = registry.suggestion(key.rpartition(".")[2], known)
    if "?" in hint or "." in key:
        return hint
    if "strategy" in known:
        parts = ", ".join(f"{part}.{key}" for part in ("strategy", "model", "stream"))
        return f" A parameter of a part has its name before it ({parts}).{hint}"
    if "axes" in known:
        return f" Settings of the runs belong under base or axes.{hint}"
    return hint


def _line(key: str, faults: list[ErrorDetails], model: type[BaseModel]) -> str:
    first = faults[0]
    if first["type"] == "extra_forbidden":
        return f"{key} is unknown.{hint_for(key, model.model_fields)}"
    if first["type"] == "missing" and first["loc"][-1] == key.rpartition(".")[2]:
        return f"{key} is missing: give --set {key}=VALUE"
    too_few = {"Field required": "Too few items"}  # of a tuple
    messages = dict.fromkeys(
        too_few.get(f["msg"], f["msg"].removeprefix("Value error, ")) for f in faults
    )
    text = "; or ".join(m[0].lower() + m[1:] for m in messages)
    given = str(first["input"])
    given = given if len(given) <= 60 else f"{given[:60]}..."
    return " ".join(f"{key}={given}: {text}".split())


@cache
def _parameters(kind: Kind, plugin: Any) -> tuple[type[BaseModel], dict[str, Any]]:
    """A pydantic model of a plugin's parameters, and the classes of those that are plugins too."""
    if not callable(plugin):
        raise TypeError(f"it is {plugin!r:.40}, no class or function")
    parameters = inspect.signature(plugin).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (missing := set(CONTEXT.get(kind, ())) - parameters.keys()):
        raise TypeError(
            f"it takes no {' and no '.join(sorted(missing))}: give a class or function with them"
        )
    hints = _type_hints(plugin)
    fields: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in CONTEXT.get(kind, ()):
            continue
        hint = hints.get(name, Any)
        if inspect.isclass(hint) and hasattr(hint, "plugin_kind"):
            nested[name] = hint
            hint = Any
        fields[name] = (hint, _default(plugin, name, parameter.default))
    for name, hint in FIELDS.get(kind, {}).items():
        fields.setdefault(name, (hint, False))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model("Parameters", __config__=config, **fields), nested


def _default(plugin: Any, name: str, default: Any) -> Any:
    """The default as pydantic takes it: `...` stands for none."""
    field = getattr(plugin, "__dataclass_fields__", {}).get(name)
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if default is inspect.Parameter.empty else default


def _type_hints(plugin: Any) -> dict[str, Any]:
    plugin = _unwrapped(plugin)
    is_record = hasattr(plugin, "__dataclass_fields__") or not inspect.isclass(plugin)
    try:
        return typing.get_type_hints(plugin if is_record else plugin.__init__, include_extras=True)
    except NameError:  # annotations that exist for the type checker only
        return {}


def _unwrapped(plugin: Any) -> Any:
    plugin = plugin.func if isinstance(plugin, partial) else plugin  # partials are never nested
    if inspect.isclass(plugin) or inspect.isroutine(plugin):
        return plugin
    return type(plugin).__call__  # an object that is called


def describe(kind: Kind, plugin: Any) -> dict[str, Any]:
    """Return the first line of a plugin's docstring, and its parameters' defaults as text."""
    model, nested = _parameters(kind, plugin)
    defaults = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name in nested and isinstance(default, nested[name]):
            default = registry.name_of(nested[name].plugin_kind, type(default))
        defaults[name] = "REQUIRED" if field.is_required() else str(default)
    lines = (inspect.getdoc(_unwrapped(plugin)) or "").splitlines()
    return {"summary": lines[0] if lines else "", "parameters": defaults}
