"""What a run will do: its stream in order, its steps, and the content address of each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform import registry
from cl_platform.code import code_digest, kernel_digest
from cl_platform.config import SECTIONS, RunConfig
from cl_platform.curriculum import Curriculum, arrange
from cl_platform.draws import Draws
from cl_platform.errors import BadInput, ConfigError
from cl_platform.identity import digest
from cl_platform.parameters import build
from cl_platform.registry import Kind
from cl_platform.samples import Samples
from cl_platform.strategy import Strategy
from cl_platform.stream import Experience, Stream, StreamInfo


@dataclass(frozen=True, eq=False)
class Step:
    """One training step of the fold: what is learned, and from which samples.

    Args:
        experience: passed to the strategy's hooks, without its test data.
        sources: experiences whose data are trained on.
        identity: what the step adds to the content address.
    """

    experience: Experience
    sources: tuple[Experience, ...]
    identity: str

    def data(self) -> Samples:
        return Samples.concat([e.train for e in self.sources])

    def tasks(self) -> Tensor:
        """The task label of each sample of :meth:`data`, (n,) int64."""
        return torch.cat([torch.full_like(e.train.y, e.task) for e in self.sources])


@dataclass(frozen=True, eq=False)
class Plan:
    """A run before it runs. ``keys[k]`` addresses the state after k steps.

    Args:
        config: complete, with every default filled in.
        stream: in the order of learning.
        order: what the curriculum returned (experiences or classes of the stream as given).
        steps: one per experience, or a single one for strategies that train on the whole stream.
        code: digests of the plugins' sources.
    """

    config: RunConfig
    stream: Stream
    order: tuple[int, ...]
    make_strategy: Callable[[], Strategy]
    make_model: Callable[..., nn.Module]
    steps: tuple[Step, ...]
    keys: tuple[str, ...]
    run_id: str
    code: dict[str, str] = field(default_factory=dict)

    def info(self, draws: Draws) -> StreamInfo:
        """What the strategy is told in ``setup``."""
        stream, device = self.stream, torch.device(self.config.device)
        return StreamInfo(
            scenario=stream.scenario,
            class_names=stream.class_names,
            input_shape=stream.input_shape,
            input_dtype=stream[0].train.source.dtype,
            n_experiences=len(stream),
            task_classes=stream.task_classes().to(device),
            preprocess=stream.preprocess,
            draws=draws,
            build_model=lambda: self.make_model(
                input_shape=stream.input_shape, n_classes=stream.n_classes
            ).to(device),
            device=device,
        )


TYPES: dict[Kind, type] = {"stream": Stream, "strategy": Strategy, "curriculum": Curriculum}
EVALUATOR = ("cl_platform.evaluation",)
KERNEL = (
    "cl_platform.fold",
    "cl_platform.grouped_replay",
    "cl_platform.wrapper",
    "cl_platform.gradients",
)


def make_plan(config: RunConfig, objects: dict[str, Any] | None = None) -> Plan:
    """The plan of a complete configuration.

    Args:
        objects: plugins that the caller holds itself, by section: a Stream, a Strategy (used as a
            template), a Curriculum, a model class.

    Raises:
        ClpError: the data cannot be loaded, the order is no permutation, or the parts do not fit.
    """
    sections = {kind: getattr(config, kind) for kind in SECTIONS}
    parts: dict[str, Any] = {
        kind: build(kind, sections[kind]) for kind in TYPES if kind not in (objects or {})
    }
    parts |= objects or {}
    for kind, expected in TYPES.items():
        if not isinstance(parts[kind], expected):
            name = sections[kind]["name"]
            found = f"{parts[kind]!r:.60}"
            raise BadInput(f"{kind} {name!r} gives {found}: expected a {expected.__name__}")
    template: Strategy = parts["strategy"]
    given: Stream = parts["stream"]
    curriculum: Curriculum = parts["curriculum"]
    _check_fit(config, template, given)
    stream, order = arrange(given, curriculum, config.seed)
    stream = stream.to(config.device)
    steps = _steps(stream, template)
    model = parts.get("model") or registry.load("model", sections["model"]["name"])
    parameters = {k: v for k, v in sections["model"].items() if k != "name"}
    named = {k: registry.load(k, sections[k]["name"]) for k in TYPES if k not in (objects or {})}
    transforms = [s.transform for e in given.experiences for s in (e.train, e.test) if s.transform]
    code = {
        "strategy": code_digest(named.get("strategy"), *(type(m) for m in template.modules())),
        "model": code_digest(model),
        "stream": code_digest(
            named.get("stream"), type(given.preprocess), *{type(t): 0 for t in transforms}
        ),
        "kernel": kernel_digest(*KERNEL),
    }
    settings = _settings(config)
    later = _per_experience(settings["strategy"], template, len(steps))
    keys = [digest("state", settings, _facts(given), code)]
    for k, step in enumerate(steps):
        own = {name: values[k] for name, values in later.items()}
        keys.append(digest(keys[-1], step.identity, *([own] if own else [])))
    scored = kernel_digest(*EVALUATOR, "cl_platform.metrics")
    columns = [e.identity for e in stream.experiences]
    return Plan(
        config=config,
        stream=stream,
        order=order,
        make_strategy=lambda: _copy(template),
        make_model=lambda **context: model(**context, **parameters),
        steps=steps,
        keys=tuple(keys),
        run_id=digest("run", keys[-1], columns, config.model_dump(), scored)[:12],
        code=code,
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a state: all but the order, and of the device only its type."""
    settings = config.model_dump()
    del settings["curriculum"]
    settings["device"] = config.device.partition(":")[0]
    return settings


def _per_experience(
    section: dict[str, Any], strategy: Strategy, n: int, where: str = "strategy"
) -> dict[str, Sequence[Any]]:
    """Taken out of the settings: hyper-parameters of which each step depends on its own item."""
    found: dict[str, Sequence[Any]] = {}
    for name in strategy.per_experience:
        if isinstance(section[name], list | tuple):
            found[f"{where}.{name}"] = items = section.pop(name)
            if len(items) != n:
                raise BadInput(
                    f"{where}.{name} has {len(items)} items, but the stream has {n} experiences: "
                    "give one for each"
                )
    for name, value in vars(strategy)["_modules"].items():
        if isinstance(value, Strategy) and name in section:
            found |= _per_experience(section[name], value, n, f"{where}.{name}")
    return found


def _facts(stream: Stream) -> list[Any]:
    """What the stream as given contributes to every state: shapes, names, preprocessing, data."""
    identities = sorted(e.identity for e in stream.experiences)
    return [stream.scenario, stream.class_names, repr(stream.preprocess), stream.online, identities]


def _steps(stream: Stream, strategy: Strategy) -> tuple[Step, ...]:
    experiences = stream.experiences
    if strategy.trains_on == "stream":  # once, and the same whatever the order
        parts = tuple(sorted(experiences, key=lambda e: e.task))
        train = Samples.concat([e.train for e in parts])
        nothing = train.select(train.index[:0])
        classes = tuple(range(stream.n_classes))
        everything = Experience("all", classes, 0, train, nothing, nothing)
        identity = digest("stream", [e.identity for e in parts])
        return (Step(everything, parts, identity),)
    cumulative = strategy.trains_on == "seen"
    return tuple(
        Step(e.without_test_data(), experiences[: k + 1] if cumulative else (e,), e.identity)
        for k, e in enumerate(experiences)
    )


def _check_fit(config: RunConfig, strategy: Strategy, stream: Stream) -> None:
    faults = []
    if strategy.needs_task and stream.scenario != "task":
        faults.append(
            f"strategy {config.strategy['name']!r} needs the task label at test time, but stream "
            f"{stream.name!r} is {stream.scenario}-incremental; give --scenario task"
        )
    if stream.online and config.epochs > 1:
        faults.append(f"epochs={config.epochs}: an online stream is seen once; give epochs=1")
    faults += [
        f"experience {e.name!r} of stream {stream.name!r} has no test data to be scored on"
        for e in stream.experiences
        if not len(e.test)
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def _copy(template: Strategy) -> Strategy:
    """A strategy with the same hyper-parameters that has learned nothing."""
    given = template.given
    return type(template)(
        **{k: _copy(v) if isinstance(v, Strategy) else v for k, v in given.items()}
    )
