"""The pages of settings and plugins, made from the models and signatures that check them.

python docs/site/settings.py prints both.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cl_platform.config import registry
from cl_platform.config.run_config import SHORTHANDS, RunConfig
from cl_platform.config.signatures import _parameters, model_of
from cl_platform.config.training import EarlyStopping, LRSchedule, ParameterGroup, RunOptimizer
from sweeps.spec import Budget, Final, PolicyLearning, Resources, SweepSpec, Tracking, Tune

HEAD = "| key | type | default | what |\n|---|---|---|---|"
SECTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "A run": ("", RunConfig),
    "optimizer": ("optimizer.", RunOptimizer),
    "optimizer.groups": ("optimizer.groups[].", ParameterGroup),
    "schedule": ("schedule.", LRSchedule),
    "early_stopping": ("early_stopping.", EarlyStopping),
    "A sweep": ("", SweepSpec),
    "resources": ("resources.", Resources),
    "budget": ("budget.", Budget),
    "tune": ("tune.", Tune),
    "tune.policy": ("tune.policy.", PolicyLearning),
    "final": ("final.", Final),
    "wandb": ("wandb.", Tracking),
}
KINDS: dict[str, registry.Kind] = {
    "Streams": "stream",
    "Strategies": "strategy",
    "Curricula and teachers": "curriculum",
    "Models": "model",
    "Pacings": "pacing",
    "Augmentations": "augmentation",
    "Affinities": "affinity",
    "Encoders": "encoder",
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
    for title, (prefix, model) in SECTIONS.items():
        level = "##" if title in ("A run", "A sweep") else "###"
        parts.append(f"{level} {title if level == '##' else f'`{title}`'}")
        parts.append(_prose(_before_args(inspect.getdoc(model) or "")))
        parts.append("\n".join([HEAD, *_rows(prefix, model)]))
        if model.model_config.get("extra") == "allow":
            parts.append("Further keys are arguments of torch's class.")
    short = ", ".join(f"`{short}` stands for `{key}`" for short, key in SHORTHANDS.items())
    return "\n\n".join([*parts, f"In short, {short}."]) + "\n"


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
    doc = inspect.getdoc(plugin.func if hasattr(plugin, "func") else plugin) or ""
    said = _arguments(doc)
    yield f"### `{name}`"
    yield _prose(_before_args(doc).split("\n\n")[0])
    rows = [
        _row(f, field, said.get(f, ""), _type_of(nested.get(f), field))
        for f, field in model.model_fields.items()
    ]
    if rows:
        yield "\n".join([HEAD, *rows])
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
    cells = [f"`{key}`", kind, _default(field), _prose(what)]
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own"
    if isinstance(value, dict) and set(value) == {"name"}:
        value = value["name"]
    if hasattr(value, "plugin_kind"):
        value = registry.name_of(value.plugin_kind, type(value))
    text = {None: "none", True: "true", False: "false"}.get(value) if _is_flag(value) else None
    return f"`{text or value}`"


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def type_text(hint: Any, metadata: Any = ()) -> str:
    """Return a type and its range in the words of the reference."""
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
        text = "mapping"
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


def _limits(metadata: Any) -> str:
    found = []
    for item in metadata:
        for one in item if isinstance(item, Interval) else [item]:
            for kind, (name, text) in BOUNDS.items():
                if isinstance(one, kind):
                    found.append(text.format(getattr(one, name)))
            if isinstance(one, MinLen) and one.min_length > 1:
                found.append(f"at least {one.min_length}")
            if isinstance(one, MaxLen):
                found.append(f"at most {one.max_length} long")
        if isinstance(item, FieldInfo):
            found += [_limits(item.metadata)]
        pattern = getattr(item, "pattern", None)
        if isinstance(pattern, str):
            found.append(f"`{pattern}`")
    return ", ".join(dict.fromkeys(f for f in found if f))


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


def _prose(text: str) -> str:
    """Docstrings in Markdown: what is a role or a link of Sphinx there is code here."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"::\n.*", "", text, flags=re.S)
    return (
        " ".join(text.split()).replace("<", "&lt;") if "`" not in text else " ".join(text.split())
    )


if __name__ == "__main__":
    print(settings_page(), plugins_page(), sep="\n")
