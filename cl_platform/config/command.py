"""The command line that stands for a configuration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from cl_platform.config.documents import dump_line
from cl_platform.config.registry import Kind
from cl_platform.config.run_config import SECTIONS, SHORTHANDS, RunConfig, flag_fields
from cl_platform.config.signatures import check_section


def command_of(config: Mapping[str, Any]) -> str:
    """Return the ``clp run`` that repeats a run, without the settings that are defaults.

    Args:
        config: complete, as in `result.json`.
    """
    words = ["clp", "run"]
    for section in _sections(config):
        words += [f"--{section}", _plugin(section, config[section])]
    shorthands = {key: name for name, key in SHORTHANDS.items()}
    flags = flag_fields()
    for key, value in differences(config):
        text, name = dump_line(value), shorthands.get(key, key)
        flag = name.replace("_", "-")
        if name not in flags:
            words += ["--set", f"{key}={text}"]
        elif flags[name].annotation is bool:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", text]
    return shlex.join(words)


def _sections(config: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The plugins that a run has in any case, and the one that it may have."""
    return (*SECTIONS, "pacing") if config.get("pacing") else SECTIONS


def _plugin(section: str, value: Mapping[str, Any]) -> str:
    short = section == "curriculum" and value["name"] == "explicit"
    if short and value.get("level") == "experiences" and len(value["order"]) > 1:
        return ",".join(map(str, value["order"]))
    return str(value["name"])


def differences(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and values that are not defaults; the seed in any case."""
    for section in _sections(config):
        ordered = "," in _plugin(section, config[section])
        for key in _given(section, json.dumps(config[section])):
            if not (ordered and key == "order"):
                yield f"{section}.{key}", config[section][key]
    defaults = _rest()
    for key, value in config.items():
        known = defaults.get(key)
        if key in _sections(config):
            continue
        if isinstance(value, Mapping):
            known = known or {}
            yield from ((f"{key}.{k}", v) for k, v in value.items() if (k, v) not in known.items())
        elif value != known or key == "seed":
            yield key, value


@cache
def _rest() -> dict[str, Any]:
    """The defaults of the settings that are not plugins."""
    return RunConfig().model_dump(mode="json", exclude=set[str](SECTIONS))


@lru_cache(4096)  # of a sweep the same few, and the orders
def _given(kind: Kind, section: str) -> tuple[str, ...]:
    """The parameters of a plugin that would have another value if they were left out."""
    complete = json.loads(section)
    found = []
    for key in [k for k in complete if k != "name"]:
        rest = {k: v for k, v in complete.items() if k != key}
        filled, faults = check_section(kind, rest, kind)
        if faults or json.loads(json.dumps(filled)) != complete:  # faults: it cannot be left out
            found.append(key)
    return tuple(found)
