"""The pages of settings and plugins, made from the models and signatures that check them.

python docs/site/settings.py prints both.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from cl_platform.config import registry
from cl_platform.config.run_config import SHORTHANDS, RunConfig
from cl_platform.config.signatures import _parameters, model_of
from streams.doors import opened
from streams.sharing import share_out
from sweeps.spec import SweepSpec

TOP: dict[str, type[BaseModel]] = {"A run": RunConfig, "A sweep": SweepSpec}
TITLES = {
    "strategy": "Strategies",
    "curriculum": "Curricula and teachers",
    "affinity": "Affinities",
}
KINDS: dict[str, registry.Kind] = {
    TITLES.get(kind, f"{kind.capitalize()}s"): kind
    for kind in registry.GROUPS
    if kind not in ("metric", "command")  # they have no parameters in a configuration
}
OF_STREAMS = {
    "open": "Nobody knows what follows: outputs grow as classes arrive.",
    "augmentation": "Random changes of training images by name, such as `crop-flip`.",
}
BOUNDS = {Ge: ("ge", ">= {}"), Gt: ("gt", "> {}"), Le: ("le", "<= {}"), Lt: ("lt", "< {}")}


def settings_page() -> str:
    """Return the page of every key of a run and of a sweep."""
    parts = [
        "# Settings",
        "Every key of a run (`--set KEY=VALUE`, a configuration file, or an argument of `clp.run`) "
        "and of a sweep's document. This page is made from the models that check them. The "
        "parameters of streams, strategies, curricula, models and the rest are on the page of "
        "[plugins](plugins.md).",
    ]
    for title, top in TOP.items():
        parts.append(f"## {title}")
        for prefix, model in _models("", top):
            parts += [f"### `{prefix}`"] if prefix else []
            parts.append(_prose(_before_args(inspect.getdoc(model) or "").split("\n\n")[0]))
            parts.append("\n".join(_rows(f"{prefix}." if prefix else "", model)))
            if model.model_config.get("extra") == "allow":
                parts.append("Further keys are arguments of torch's class.")
    short = ", ".join(f"`{short}` stands for `{key}`" for short, key in SHORTHANDS.items())
    return "\n\n".join([*parts, f"In short, {short}."]) + "\n"


def _models(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those in its fields, each under its dotted key."""
    yield prefix, model
    for name, field in model.model_fields.items():
        if inner := model_of(field):
            yield from _models(f"{prefix}.{name}".strip("."), inner)


def plugins_page() -> str:
    """Return the page of every registered plugin with its parameters."""
    parts = [
        "# Plugins",
        "Everything that a configuration can name, with its parameters: `--strategy er --set "
        "strategy.memory_size=500`. This page is made from their signatures and docstrings; "
        "`clp list` prints the same for what is installed.",
    ]
    for title, kind in KINDS.items():
        parts.append(f"## {title}")
        for name, entry in registry.plugins(kind).items():
            if (entry.dist is None) or entry.dist.name == "cl-platform":
                parts += _plugin(kind, name)
    return "\n\n".join(parts) + "\n"


def _plugin(kind: registry.Kind, name: str) -> Iterator[str]:
    plugin = registry.load(kind, name)
    model, nested = _parameters(kind, plugin)
    if not inspect.isroutine(plugin) and not inspect.isclass(plugin) and kind == "model":
        plugin = type(plugin).__call__  # of a library, which says there what its networks take
    doc = inspect.getdoc(plugin.func if hasattr(plugin, "func") else plugin) or ""
    said = (OF_STREAMS | _said(share_out) | _said(opened) if kind == "stream" else {}) | _said(
        plugin
    )
    yield f"### `{name}`"
    yield _prose(_before_args(doc).split("\n\n")[0])
    rows = [
        _row(f, field, said.get(f, ""), _type_of(nested.get(f), field))
        for f, field in model.model_fields.items()
    ]
    if rows:
        yield "\n".join(rows)
    else:
        yield "It has no parameters."


def _type_of(nested: Any, field: FieldInfo) -> str:
    return f"a {nested.plugin_kind}" if nested else type_text(field.annotation, field.metadata)


def _rows(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    said = _arguments(inspect.getdoc(model) or "")
    attributes = _attribute_docs(model)
    for name, field in model.model_fields.items():
        inner = model_of(field)
        what = field.description or attributes.get(name) or said.get(name, "")
        if inner and not what:
            what = _before_args(inspect.getdoc(inner) or "").split("\n\n")[0]
        yield _row(prefix + name, field, what, type_text(field.annotation, field.metadata))


def _row(key: str, field: FieldInfo, what: str, kind: str) -> str:
    default = _default(field)
    return f"- **`{key}`**: {kind}; {default}" + (
        f"  \n    {_prose(what[0].upper() + what[1:])}" if what else ""
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, dict) and set(value) == {"name"}:
        value = value["name"]
    if hasattr(value, "plugin_kind"):
        value = registry.name_of(value.plugin_kind, type(value))
    text = {None: "none", True: "true", False: "false"}.get(value) if _is_flag(value) else None
    return f"default `{text or value}`"


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def type_text(hint: Any, metadata: Any = ()) -> str:
    """Return a type and its range in the words of the reference."""
    metadata = list(_flat(metadata))
    limits = _limits(metadata)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(hint, "__metadata__"):
        return type_text(arguments[0], [*hint.__metadata__, *metadata])
    if origin is typing.Literal:
        text = ", ".join(f"`{_word(a)}`" for a in arguments)
    elif origin in (typing.Union, types.UnionType):
        options = [type_text(a) for a in arguments if a is not type(None)]
        text = " or ".join(
            dict.fromkeys([*options, *(["none"] if type(None) in arguments else [])])
        )
    elif origin is dict or hint is dict:
        named = any(isinstance(item, BeforeValidator) for item in metadata)
        text = "name or mapping" if named else "mapping"
    elif origin is not None and inspect.isclass(origin):
        inner = [type_text(a) for a in arguments if a is not Ellipsis]
        text = f"list of {', '.join(dict.fromkeys(inner))}"
        text = "mapping" if "Mapping" in str(origin) else text
    else:
        known = {int: "integer", float: "number", bool: "true or false", str: "text"}
        text = known.get(hint) or ("any" if hint is Any else _class_name(hint))
    if text.startswith("list") and any(getattr(m, "min_length", 0) == 1 for m in metadata):
        text = f"non-empty {text}"
    return f"{text} {limits}".strip()


def _class_name(hint: Any) -> str:
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return "mapping"
    return getattr(hint, "__name__", str(hint))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flat(metadata: Any) -> Iterator[Any]:
    """What pydantic and annotated-types pack into one object, one by one."""
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _flat(item.metadata)
        elif isinstance(item, Interval):
            yield from item
        else:
            yield item


def _limits(metadata: list[Any]) -> str:
    found = []
    for item in metadata:
        if type(item) in BOUNDS:
            name, text = BOUNDS[type(item)]
            found.append(text.format(getattr(item, name)))
        elif isinstance(item, MinLen) and item.min_length > 1:
            found.append(f"at least {item.min_length} long")
        elif isinstance(item, MaxLen):
            found.append(f"at most {item.max_length} long")
        elif isinstance(pattern := getattr(item, "pattern", None), str):
            found.append(f"`{pattern}`")
    return ", ".join(dict.fromkeys(found))


def _attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a model that does not read them itself."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__[:-2]):
        try:
            source = inspect.getsource(owner)
        except (OSError, TypeError):
            continue
        for name, text in re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.M | re.S):
            found[name] = " ".join(text.split())
    return found


def _before_args(doc: str) -> str:
    return re.split(r"^(?:Args|Source|Attributes|Raises|Returns):", doc, flags=re.M)[0].strip()


def _arguments(doc: str) -> dict[str, str]:
    """The texts of a docstring's arguments by name."""
    section = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", doc, re.M | re.S)
    found: dict[str, str] = {}
    for part in re.split(r"\n(?=    \w)", "\n" + section[1].rstrip() if section else ""):
        names, colon, text = part.strip().partition(": ")
        if colon:
            for name in names.split(", "):
                found[name.strip().strip("*")] = " ".join(text.split())
    return found


def _said(plugin: Any, seen: tuple[Any, ...] = ()) -> dict[str, str]:
    """What docstrings say of parameters: a plugin's own, its bases', and those that these name."""
    plugin = getattr(plugin, "func", plugin)
    if plugin in seen or len(seen) > 4:
        return {}
    owners = list(plugin.__mro__[:-1]) if inspect.isclass(plugin) else [plugin]
    found: dict[str, str] = {}
    for owner in owners:
        doc = inspect.cleandoc(owner.__doc__ or "")
        found = _arguments(doc) | found
        for path in re.findall(r"(?:those of|as for) :\w+:`~?([\w.]+)`", doc):
            other = _named(path, owner)
            found = (_said(other, (*seen, plugin)) if other else {}) | found
    return found


def _named(path: str, owner: Any) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module or owner.__module__), name, None)
    except ImportError:
        return None


def _prose(text: str) -> str:
    """Docstrings in Markdown: what is a role or a link of Sphinx there is code here."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"::\n.*", "", text, flags=re.S)
    return (
        " ".join(text.split()).replace("<", "&lt;") if "`" not in text else " ".join(text.split())
    )


if __name__ == "__main__":
    print(settings_page(), plugins_page(), sep="\n")
