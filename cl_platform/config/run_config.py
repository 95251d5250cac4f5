"""The configuration of a run: what decides its bits, validated as a whole beforehand."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic.fields import FieldInfo

from cl_platform.config import documents
from cl_platform.config.documents import DEPTH, INTEGER
from cl_platform.config.registry import Kind
from cl_platform.config.signatures import Section, as_section, check_section, faults_of, model_of
from cl_platform.config.training import (
    Budget as Budget,
    EarlyStopping as EarlyStopping,
    LRSchedule as LRSchedule,
    Optimizer as Optimizer,
    Optimizers,
    Probe as Probe,
    RunOptimizer,
    Series,
    Share,
)
from cl_platform.errors import BadInput, ConfigError, one_line, printable


def _named(value: Any) -> Any:
    try:
        return as_section(value)
    except BadInput as error:
        raise ValueError(str(error)) from None


def _ordered(value: Any) -> Any:
    """`[2, 0, 1]` or `2,0,1` is short for the curriculum `explicit` with that order."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)+", value):
        value = [int(i) for i in value.split(",")]
    return {"name": "explicit", "order": value} if isinstance(value, list | tuple) else value


def listed(value: Any) -> Any:
    """`crop,flip` is short for a list, one name for a list of it, and `none` for an empty one."""
    if isinstance(value, str):
        text = value.strip()
        flow = text.startswith(("[", "{"))  # a list in YAML, as a flag of the command line
        try:
            value = documents.parse(text) if flow else [part.strip() for part in text.split(",")]
        except BadInput as error:
            raise ValueError(str(error)) from None
    value = [value] if isinstance(value, Mapping) else value
    return [] if value in (["none"], [""]) else value


def _perhaps(value: Any) -> Any:
    return None if value in (None, "none") else _named(value)


Plugin = Annotated[Section, BeforeValidator(_named)]
Optional = Annotated[Section | None, BeforeValidator(_perhaps)]
Order = Annotated[Plugin, BeforeValidator(_ordered)]
Plugins = Annotated[list[Plugin], BeforeValidator(listed)]

Threads = Annotated[int, Field(ge=1, le=1024)]


class RunConfig(BaseModel):
    """Everything that decides the bits of a run: not where it writes, nor who watches it.

    A setting that is not a model itself is a flag of ``clp run``; its docstring is the help text.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    stream: Plugin = Field(default={"name": "split-digits"}, validate_default=True)
    """What is learned, for example split-mnist."""
    strategy: Plugin = Field(default={"name": "er"}, validate_default=True)
    """How it is learned: a name such as er, or a class of your own, path/to/file.py:Class."""
    curriculum: Order = Field(default={"name": "as_given"}, validate_default=True)
    """In which order: as_given, reverse, random, or 2,0,1,..."""
    pacing: Optional = None
    """Which samples the epochs of an experience have: cyclical, easy-to-hard, ... or none."""
    model: Plugin = Field(default={"name": "mlp"}, validate_default=True)
    """The network: mlp, cnn, ...; pretrained: vit, minilm, ...; timm:, torchvision: or hf:NAME."""
    optimizer: Optimizers = Field(default_factory=RunOptimizer)
    schedule: LRSchedule | None = None
    seed: NonNegativeInt = 0
    """Seed of every random number of the run."""
    permute_labels: bool = False
    """Deal the class indices anew by the seed, so that none is favoured for its number."""
    epochs: Series[PositiveInt] = 1
    """Passes over each experience's data; a list over the experiences: 20,5."""
    batch_size: PositiveInt = 10
    """New samples per step."""
    augmentation: Plugins | None = None
    """Random changes of training images in place of the stream's own: crop,flip,... or none."""
    label_smoothing: Share = 0.0
    """Share of each label that is spread over all classes that compete."""
    clip_norm: NonNegativeFloat | None = None
    """Largest norm of the gradient; 0 for any. If not given, the method's own, if it has one."""
    clip_value: PositiveFloat | None = None
    """Largest absolute value of each number of the gradient."""
    accumulate: PositiveInt = 1
    """Batches whose mean gradient makes one step of the optimizer."""
    ema: Share = 0.0
    """Decay of a moving average of the weights, which is evaluated in their place; 0 for none."""
    early_stopping: EarlyStopping | None = None
    loss_classes: Literal["all", "seen"] = "all"
    """Classes that compete in the loss of class-incremental streams: all, or those seen so far."""
    evaluate_every: NonNegativeInt = 0
    """Steps between evaluations within an experience, for anytime_accuracy; 0 for none."""
    plasticity: bool = False
    """Measure active units, the rank of features and the norm of weights of every state."""
    gradient_norm: bool = False
    """Measure the norm of the gradient at every step, for its curve where a run is tracked."""
    trainability_steps: NonNegativeInt = 0
    """Steps of a copy of each state's model on random labels, for trainability; 0 for none."""
    budget: Budget | None = None
    probe: Probe | None = None
    evaluate: PositiveInt | Literal["last"] = 1
    """Rows of the accuracy matrix: after each experience, every so many, or the last alone."""
    count_flops: bool = False
    """Count the FLOPs of training. It is slower, and the gradient of SiLU is computed otherwise."""
    precision: Literal["float32", "bf16"] = "float32"
    """float32, or bf16 for matrix products in bfloat16; weights and logits stay float32."""
    threads: Literal["auto"] | Threads = "auto"
    """CPU threads: a number, or auto for one with small models, else all that the process has."""
    compile: bool | Literal["auto"] = False
    """Compile each loss with its gradient: true, false, or auto, where an experience earns the
    warm-up back."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    """cpu, cuda, cuda:1 or mps."""
    boundaries: Literal["known", "hidden"] = "known"
    """Where an experience ends: known to the strategy, or hidden, so that it gets batches alone."""
    processes: PositiveInt = 1
    """Processes that share the rows of each batch, each on a GPU of its own or all on the CPU."""


SECTIONS: tuple[Kind, ...] = ("stream", "strategy", "curriculum", "model")

# Settings that decide no bit of training: what is measured of it, and what it is compared with.
BESIDE_TRAINING = ("plasticity", "gradient_norm", "trainability_steps", "budget", "probe")

# Flags of `clp run` and arguments of `clp.run` that stand for a dotted key.
SHORTHANDS = {"lr": "optimizer.lr", "scenario": "stream.scenario"}


def flag_fields() -> dict[str, FieldInfo]:
    """Return the settings that are flags of ``clp run``, by name, with their help and default."""
    scenario: Any = Field(None, description="class, task or domain, where the stream has a choice.")
    found = {name: f for name, f in RunConfig.model_fields.items() if model_of(f) is None}
    return {**found, "lr": RunOptimizer.model_fields["lr"], "scenario": scenario}


def parse_config(data: Mapping[str, Any], given: Iterable[Kind] = ()) -> RunConfig:
    """Return a complete configuration: every default of every plugin filled in.

    What only torch can check (optimizer, schedule, device) is left to the planner.

    Args:
        data: as read from a file or the command line.
        given: sections of which the caller holds the object, so that no name is looked up.

    Raises:
        ConfigError: with one line per fault, all of them.
    """
    faults: list[str] = []
    data = {**data, **{k: _with_name(k, data[k]) for k in SECTIONS if k in data}}
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        faults = faults_of(error, RunConfig)
        sections = {k: data[k] for k in SECTIONS if isinstance(data.get(k), str | Mapping)}
        try:  # go on with what is sound, so that all faults are shown at once
            config = RunConfig.model_validate(sections)
        except ValidationError:
            raise ConfigError("\n".join(faults)) from None
    for kind in SECTIONS:
        if kind not in given:
            section, more = check_section(kind, getattr(config, kind), kind)
            setattr(config, kind, section)
            faults += more
    if config.pacing is not None and "pacing" not in given:
        config.pacing, more = check_section("pacing", config.pacing, "pacing")
        faults += more
    for i, section in enumerate(config.augmentation or ()):
        complete, more = check_section("augmentation", section, f"augmentation.{i}")
        config.augmentation[i] = complete  # type: ignore[index]
        faults += more
    if not faults:
        try:
            faults = list(_unwritable(config.model_dump(), ""))
            if not faults:
                config.model_dump_json()
        except ValueError as error:  # objects, which only Python callers can give
            reason = one_line(error)
            faults = [f"the configuration cannot be written as JSON: {reason}"]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _unwritable(value: Any, where: str) -> Iterator[str]:
    """Yield the faults of values that JSON, a program that reads it, or a page does not hold."""
    if isinstance(value, str) and any(printable(c) != c for c in re.split(r"[\n\t]", value)):
        yield f"{where}={value!r} holds characters that cannot be shown: leave them out"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}={value}: give a finite number"
    elif isinstance(value, int) and not -INTEGER <= value < INTEGER:
        yield f"{where} is an integer of {value.bit_length() + 1} bits: give one of 64 bits at most"
    elif isinstance(value, Mapping | list | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _unwritable(item, f"{where}.{key}" if where else str(key))


def _with_name(kind: Kind, section: Any) -> Any:
    """Parameters without a name are those of the section's default plugin."""
    if isinstance(section, Mapping) and "name" not in section:
        return {**RunConfig.model_fields[kind].default, **section}
    return section


def read_file(path: str | Path) -> dict[str, Any]:
    """Read a configuration file (YAML or JSON).

    Raises:
        ConfigError: the file cannot be read or is no mapping.
    """
    try:
        data = documents.read(path)
    except BadInput as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"config file {path} holds a {type(data).__name__}: expected a mapping")
    return data


def apply_settings(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``key=value`` settings to `data` in order; keys are dotted, values are YAML
    (see :mod:`cl_platform.config.documents`).

    Raises:
        ConfigError: a setting is not of the form key=value.
    """
    faults = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            faults.append(f"setting {setting!r} is not of the form key=value")
            continue
        try:
            put(data, key.strip(), documents.parse(text))
        except BadInput as error:
            faults.append(f"setting {setting!r:.200} cannot be read: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    return data


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; a plugin given by name only becomes a mapping when a parameter is set.

    A section that gets another name loses the parameters of the previous plugin.
    """
    here = data
    *path, last = key.split(".")
    if len(path) > DEPTH:
        raise BadInput(f"key {key[:20]}... has more than {DEPTH} parts")
    for part in path:
        present = here.get(part)
        if isinstance(present, str):
            present = {"name": present}
        elif present is not None and not isinstance(present, dict):
            raise BadInput(f"{part} is {present!r} and takes no parameters")
        here[part] = present = present or {}
        here = present
    here[last] = value


def with_flags(data: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `data` with the flags that were given (not None) under their keys.

    Shorthands (``lr``) come last: they set a part of a section that another flag may give whole.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(data))
    for name in sorted(flags, key=lambda flag: flag in SHORTHANDS):
        value, present = flags[name], merged.get(name)
        if value is None:
            continue
        if isinstance(present, dict) and present.get("name") == value:
            continue  # the same plugin: keep its parameters
        put(merged, SHORTHANDS.get(name, name), copy.deepcopy(value))
    return merged
