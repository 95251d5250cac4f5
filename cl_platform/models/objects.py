"""Objects and classes where names are expected: in sweeps, and in checks.

What a name finds keeps its name, so that it is the same run. Anything else gets a name of its own,
which holds a digest of its data or code, and travels to workers with the digest of its code: there
its source may not be found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn

from cl_platform.config.given import give, given
from cl_platform.config.registry import Kind, load, name_of
from cl_platform.config.signatures import object_faults
from cl_platform.core.code_digest import digest_of, known_code
from cl_platform.core.digests import digest
from cl_platform.core.order.curriculum import Curriculum
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.given import Given

_code: dict[Any, str] = {}  # of what was given in this process, as it was then
KINDS: tuple[Kind, ...] = ("stream", "strategy", "curriculum", "model")


class GivenStream:
    """Returns a stream; pickled it has no data but mapped ones, which workers share otherwise."""

    def __init__(self, stream: Stream) -> None:
        self.stream: Stream | None = stream

    def __call__(self) -> Stream:
        """Return it."""
        if self.stream is None:
            raise BadInput("the data of a stream given as an object were not sent to this process")
        return self.stream

    def __getstate__(self) -> dict[str, Any]:
        stream = self.stream
        mapped = stream is not None and any(e.train.mapped for e in stream.experiences)
        return {"stream": stream if mapped else None}


@dataclass(frozen=True)
class Parcel:
    """Given plugins on their way to a worker.

    Args:
        plugins: by name.
        code: classes and functions with the digest of their code where they come from.
    """

    plugins: Mapping[str, Any]
    code: tuple[tuple[Any, str], ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Parcel:
        """Return what was given under these names."""
        return cls({n: given("plugin", n) for n in dict.fromkeys(names)}, tuple(_code.items()))

    def unpack(self) -> None:
        """Give the same in this process."""
        known_code.update(self.code)
        for name, plugin in self.plugins.items():
            give(name.partition(":")[2], plugin)


def as_named(kind: Kind, value: Any) -> Any:
    """Return the section that stands for a plugin given as an object or class; names as they are.

    Raises:
        ConfigError: hyper-parameters of a strategy are wrong.
    """
    if isinstance(value, Mapping) and not isinstance(value.get("name", ""), str):
        return {**value, **as_named(kind, value["name"])}
    if kind == "stream" and isinstance(value, Stream):
        data = [e.identity for e in value.parts()]
        facts = [
            value.scenario,
            value.class_names,
            repr(value.preprocess),
            value.online,
            value.open,
        ]
        return {"name": give(f"{value.name}-{digest(facts, data)[:8]}", GivenStream(value))}
    if kind == "strategy" and isinstance(value, Strategy):
        if faults := object_faults(value):
            raise ConfigError("\n".join(faults))
        return {"name": _found_or_given(kind, type(value)), **value.hyperparameters()}
    if kind == "curriculum" and isinstance(value, Curriculum):
        return {"name": _found_or_given(kind, type(value)), **vars(value)}
    if kind == "model" and isinstance(value, nn.Module):
        for kind_of_module in {type(module) for module in value.modules()}:
            _code[kind_of_module] = digest_of(kind_of_module)
        module = Given(value)
        name = type(value).__name__
        return {"name": give(f"{name}-{module.fingerprint()[:8]}", module)}
    if isinstance(value, type | FunctionType):
        return {"name": _found_or_given(kind, value)}
    return value


def with_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each plugin that is an object by a name."""
    return {k: as_named(k, v) if k in KINDS else v for k, v in data.items()}


def _found_or_given(kind: Kind, plugin: Any) -> str:
    """Return the name of a class or function; one of its own where no name finds it."""
    name = name_of(kind, plugin)
    try:
        if not name.startswith("__main__") and load(kind, name) is plugin:
            return name
    except BadInput:
        pass
    _code[plugin] = digest_of(plugin)
    return give(f"{plugin.__qualname__.rpartition('.')[2]}-{_code[plugin][:8]}", plugin)
