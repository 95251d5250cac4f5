"""One run in one call: ``cl_platform.run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from cl_platform.config.registry import load, name_of
from cl_platform.config.run_config import SHORTHANDS, parse_config, with_flags
from cl_platform.config.signatures import check_section, object_faults
from cl_platform.config.tracking import parse_tracking
from cl_platform.core.augmentation import Augmentation
from cl_platform.core.order.curriculum import Curriculum
from cl_platform.core.order.pacing import Pacing
from cl_platform.core.predictions import Keeping
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.execution import DEFAULT_OUT, execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.given import Given
from cl_platform.results.result import Result
from cl_platform.storage.state_store import Keep
from cl_platform.tracking.notebook import NotebookSink, in_notebook
from cl_platform.tracking.opened import open_sinks, open_wandb
from cl_platform.tracking.sinks import Sink


def run(
    stream: str | Mapping[str, Any] | Stream = "split-digits",
    strategy: str | Mapping[str, Any] | Strategy | type[Strategy] = "er",
    *,
    curriculum: str | Mapping[str, Any] | Curriculum | Sequence[int] = "as_given",
    model: str | Mapping[str, Any] | type[nn.Module] | nn.Module = "mlp",
    out: str | Path | None = DEFAULT_OUT,
    sinks: Sequence[str | Mapping[str, Any] | Sink] | None = None,
    wandb: str | Mapping[str, Any] = "off",
    keep: Keep = "all",
    predictions: Keeping = "top",
    **settings: Any,
) -> Result:
    """Run one strategy on one stream and return the result.

    Streams, strategies, curricula, pacings and models are given by name, as ``{"name": ...,
    **parameters}`` or as objects. The result of a run that has ended in `out` before is returned at
    once; a run that was killed goes on where it was.

    A model may be a module: it is copied, and the copies are trained. ``{"name": module,
    "blocks": "encoder.layers"}`` names parts of it, as :func:`cl_platform.adopt` does.

    Args:
        predictions: what is kept of the predictions for test samples, 64 MB at most: the likeliest
            classes (``top``), all probabilities as well (``scores``), or ``none``; see
            :meth:`Result.predictions`.
        sinks: told of every event: objects, or names of plugins (``mlflow``, ``tensorboard``,
            ``trackio``); by default one bar in a notebook, and nothing elsewhere.
        wandb: ``offline``, ``online`` or ``off``, or with more settings ``{"mode": "offline",
            "log_model": "last"}``; see :class:`cl_platform.config.tracking.Wandb`.
        settings: further keys of :class:`cl_platform.config.run_config.RunConfig` (``seed``,
            ``epochs``, ``batch_size``, ``optimizer``, ``schedule``, ``device``), ``lr`` and
            ``scenario``. Augmentations may be objects as well.

    Raises:
        ConfigError: with one line per fault.
        RunFailed, StorageError: see :func:`execute`.
    """
    data: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        try:
            strategy = strategy()
        except TypeError as error:
            name = strategy.__name__
            raise BadInput(f"strategy {name} needs its parameters: {error}") from error
    if isinstance(stream, Stream):
        objects["stream"], data["stream"] = stream, {"name": stream.name}
    if isinstance(strategy, Strategy):
        objects["strategy"] = strategy
        if faults := object_faults(strategy):
            raise ConfigError("\n".join(faults))
        name = name_of("strategy", type(strategy))
        data["strategy"] = {"name": name, **strategy.hyperparameters()}
    if isinstance(curriculum, Curriculum):
        objects["curriculum"] = curriculum
        name = name_of("curriculum", type(curriculum))
        data["curriculum"] = {"name": name, **vars(curriculum)}
    if isinstance(pacing := settings.get("pacing"), Pacing):
        objects["pacing"] = pacing
        data["pacing"] = {"name": name_of("pacing", type(pacing)), **vars(pacing)}
    section: dict[str, Any] = dict(model) if isinstance(model, Mapping) else {"name": model}
    if isinstance(section.get("name"), nn.Module):
        objects["model"] = Given(section["name"])
        section["name"] = name_of("model", type(section["name"]))
        data["model"], faults = check_section("model", section, "model", objects["model"])
        if faults:
            raise ConfigError("\n".join(faults))
    elif not isinstance(model, str | Mapping):
        if not isinstance(model, type | FunctionType):
            raise BadInput(
                f"model={model!r:.60}: give a name, a name with parameters, or a class or function "
                "that takes input_shape and n_classes, or a module"
            )
        name = name_of("model", model)
        if _is_found(name, model):  # then it is the same run as by its name, defaults and all
            model = name
        else:
            objects["model"], data["model"] = model, {"name": name}
    for flag, key in SHORTHANDS.items():
        owner = key.partition(".")[0]
        if owner in objects and settings.get(flag) is not None:
            raise BadInput(f"{flag}={settings[flag]!r} cannot change a {owner} given as an object")
    by_name = {"stream": stream, "strategy": strategy, "curriculum": curriculum, "model": model}
    flags = {k: v for k, v in {**by_name, **settings}.items() if k not in objects}
    if isinstance(flags.get("augmentation"), list | tuple):
        flags["augmentation"] = [_augmentation(one) for one in flags["augmentation"]]
    config = parse_config(with_flags(data, flags), given=tuple(objects))  # type: ignore[arg-type]
    if sinks is None:
        sinks = [NotebookSink()] if in_notebook() else []
    named = [sink for sink in sinks if isinstance(sink, str | Mapping)]
    tracking = parse_tracking({"wandb": wandb, "sinks": named})
    plan, folder = make_plan(config, objects), DEFAULT_OUT if out is None else out
    told = [sink for sink in sinks if not isinstance(sink, str | Mapping)]
    told += [*open_sinks(tracking.sinks, folder), *open_wandb(tracking.wandb, folder)]
    result = execute(plan, out, sinks=told, keep=keep, predictions=predictions)
    return replace(result, objects=objects)


def _augmentation(given: Any) -> Any:
    """Return the section of an augmentation that is given as an object or class."""
    if isinstance(given, Augmentation):
        return {"name": name_of("augmentation", type(given)), **vars(given)}
    if isinstance(given, type):
        return {"name": name_of("augmentation", given)}
    return given


def _is_found(name: str, model: Any) -> bool:
    """Return whether a model's name gives it."""
    try:
        return load("model", name) is model
    except BadInput:
        return False
