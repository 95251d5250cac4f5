"""What a run will do: its stream in order, its steps, and the content address of each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl_platform.config import registry
from cl_platform.config.registry import Kind
from cl_platform.config.run_config import RunConfig
from cl_platform.config.signatures import build
from cl_platform.core.code_digest import code_digest, kernel_digest
from cl_platform.core.curriculum import Curriculum, arrange, ask
from cl_platform.core.digests import digest
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG, global_generators, seed_for
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream, StreamInfo
from cl_platform.engine.optimization import device_fault, try_optimizer, try_schedule
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.features import Features
from cl_platform.models.frozen import freeze


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

    def to(self, device: torch.device, moved: dict[int, Tensor]) -> Step:
        sources = tuple(e.to(device, moved) for e in self.sources)
        return replace(self, experience=self.experience.to(device, moved), sources=sources)

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
        weights: a hash of the weights that the model is pretrained with; empty if it is random.
        evaluators: by split; made by the first fold that needs one, shared by plans of a planner.
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
    weights: str = ""
    evaluators: dict[str, Any] = field(default_factory=dict)

    def on_device(self) -> Plan:
        """The plan with its data resident on the configuration's device."""
        device = torch.device(self.config.device)
        moved: dict[int, Tensor] = {}
        return replace(
            self,
            stream=self.stream.to(device, moved),
            steps=tuple(step.to(device, moved) for step in self.steps),
        )

    def info(self, rng: RNG) -> StreamInfo:
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
            rng=rng,
            build_model=self._model,
            frozen_model=self._frozen_model,
            features=self._features if self.weights else None,
            device=device,
        )

    def _model(self) -> nn.Module:
        """A model on the device, random as the global generator is, or as it was pretrained."""
        shape, n_classes = self.stream.input_shape, self.stream.n_classes
        model = self.make_model(input_shape=shape, n_classes=n_classes)
        return model.to(self.config.device)

    def _frozen_model(self) -> nn.Module:
        """The same as a constant. Those that are pretrained exist once in a process."""
        if not self.weights:
            return freeze(self._model())
        key = digest(self._model_identity(), self.stream.n_classes, self.config.device)
        if key not in _PRETRAINED:
            _PRETRAINED.clear()  # one is enough: the runs of a process follow each other
            with global_generators(0):  # what is drawn next must not depend on who made it
                _PRETRAINED[key] = freeze(self._model())
        return _PRETRAINED[key]

    def _model_identity(self) -> str:
        return digest(self.code["model"], self.config.model, self.stream.input_shape)

    def _features(self, model: nn.Module) -> Features:
        config, preprocess = self.config, self.stream.preprocess
        device = torch.device(config.device)
        return Features(model, self._model_identity(), preprocess, config.precision, device)


_PRETRAINED: dict[str, nn.Module] = {}  # frozen, by identity

TYPES: dict[Kind, type] = {"stream": Stream, "strategy": Strategy, "curriculum": Curriculum}
EVALUATOR = ("cl_platform.engine.evaluation",)
KERNEL = (
    "cl_platform.engine.fold",
    "cl_platform.core.buffers",
    "cl_platform.core.wrapper",
)


def make_plan(config: RunConfig, objects: dict[str, Any] | None = None) -> Plan:
    """The plan of a complete configuration.

    Args:
        objects: plugins that the caller holds itself, by section: a Stream, a Strategy (used as a
            template), a Curriculum, a model class.

    Raises:
        ClpError: the data cannot be loaded, the order is no permutation, or the parts do not fit.
    """
    return Planner(objects)(config)


class Planner:
    """Makes plans; what several of them have in common is loaded, arranged and hashed once."""

    def __init__(self, objects: dict[str, Any] | None = None, *, check_device: bool = True) -> None:
        self.objects = objects or {}
        self.check_device = check_device
        self._once: dict[Any, Any] = {}

    def __call__(self, config: RunConfig, order: Sequence[int] | None = None) -> Plan:
        """The plan of a configuration; see :func:`make_plan`.

        Args:
            order: what the curriculum answered before, so that it is not asked again.
        """
        self._try(config)
        given = self.stream(config)
        template: Strategy = self._part("strategy", config)
        curriculum: Curriculum = self._part("curriculum", config)
        _check_fit(config, template, given)
        if order is None:
            asked = ("order", _key(config.stream), _key(config.curriculum), config.seed)
            order = self._made(asked, lambda: ask(given, curriculum, config.seed))
        model = self.objects.get("model") or registry.load("model", config.model["name"])
        parameters = {k: v for k, v in config.model.items() if k != "name"}
        data, known, labels = self._labelled(config, given)
        data, known = self._normalised(data, known, model, parameters)
        arranged = ("arranged", data, curriculum.level, tuple(order))
        places = [labels[c] for c in order] if curriculum.level == "classes" else order
        stream = self._made(arranged, lambda: arrange(known, curriculum.level, places))
        kind = template.trains_on
        same = kind == "stream" and curriculum.level == "experiences"  # whatever the order
        steps = self._made(
            (data, kind) if same else (*arranged, kind), lambda: _steps(stream, kind)
        )
        code = self._code(config, template, model, given)
        weights = _weights_of(model, parameters)
        code["model"] = digest(code["model"], weights) if weights else code["model"]
        settings = _settings(config)
        later = _per_experience(settings["strategy"], template, len(steps))
        facts = self._made(("facts", data), lambda: _facts(known))
        keys = [digest("state", settings, facts, code)]
        for k, step in enumerate(steps):
            own = {name: values[k] for name, values in later.items()}
            keys.append(digest(keys[-1], step.identity, *([own] if own else [])))
        scored = kernel_digest(*EVALUATOR, "cl_platform.metrics.matrix_metrics")
        columns = [e.identity for e in stream.experiences]
        return Plan(
            config=config,
            stream=stream,
            order=tuple(order),
            make_strategy=lambda: _copy(template),
            make_model=lambda **context: model(**context, **parameters),
            steps=steps,
            keys=tuple(keys),
            run_id=digest("run", keys[-1], columns, config.model_dump(), scored)[:12],
            code=code,
            weights=weights,
            evaluators=self._evaluators(data, config.device, curriculum),
        )

    def _try(self, config: RunConfig) -> None:
        """Raise ConfigError for what only torch can say: of optimizer, schedule and device."""
        asked = ("faults", repr((config.optimizer, config.schedule)), config.device)
        faults = self._made(
            asked,
            lambda: [
                *try_optimizer(config.optimizer),
                *try_schedule(config.optimizer, config.schedule),
                *(device_fault(config.device) if self.check_device else ()),
            ],
        )
        if faults:
            raise ConfigError("\n".join(faults))

    def _labelled(self, config: RunConfig, given: Stream) -> tuple[str, Stream, list[int]]:
        """The stream with the class indices of the run: its key, itself, and the indices."""
        data = _key(config.stream)
        if not config.permute_labels:
            return data, given, list(range(given.n_classes))
        rng = np.random.default_rng(seed_for(config.seed, 0, "labels"))
        labels = [int(c) for c in rng.permutation(given.n_classes)]
        key = f"{data} labels {config.seed}"
        return key, self._made(("labelled", key), lambda: given.relabelled(labels)), labels

    def _normalised(
        self, data: str, stream: Stream, model: Any, parameters: dict[str, Any]
    ) -> tuple[str, Stream]:
        """The stream, and its key, with the mean and std that the model's weights were made for."""
        wanted = getattr(model, "preprocess", None)
        if callable(wanted) and not isinstance(wanted, Preprocess):
            wanted = wanted(**parameters)
        if not isinstance(wanted, Preprocess):
            return data, stream
        key = f"{data} as {wanted!r}"
        return key, self._made(("normalised", key), lambda: stream.normalised_as(wanted))

    def _evaluators(self, data: str, device: str, curriculum: Curriculum) -> dict[str, Any]:
        """They hold the prepared test data, the same for all orders of experiences."""
        if curriculum.level == "classes":
            return {}
        shared: dict[str, Any] = self._made(("evaluators", data, device), dict)
        return shared

    def stream(self, config: RunConfig) -> Stream:
        """The stream of a configuration as given, before any curriculum."""
        made: Stream = self._made(
            ("stream", _key(config.stream)), lambda: self._part("stream", config)
        )
        return made

    def knows(self, config: RunConfig) -> bool:
        """Whether the stream of a configuration is there already."""
        return ("stream", _key(config.stream)) in self._once

    def adopt(self, config: RunConfig, stream: Stream) -> None:
        """Use this stream wherever the configuration's one is asked for: the same, made before."""
        self._once["stream", _key(config.stream)] = stream

    def _part(self, kind: Kind, config: RunConfig) -> Any:
        part = self.objects.get(kind)
        return _checked(kind, build(kind, getattr(config, kind)) if part is None else part, config)

    def _code(
        self, config: RunConfig, template: Strategy, model: Any, given: Stream
    ) -> dict[str, str]:
        """Digests of the code of each part."""
        named = {
            kind: registry.load(kind, getattr(config, kind)["name"])
            for kind in ("strategy", "stream")
            if kind not in self.objects
        }
        classes = tuple(type(m) for m in template.modules())
        name = config.strategy["name"]
        key = _key(config.stream)
        return {
            "strategy": self._made(
                ("strategy", name, classes), lambda: code_digest(named.get("strategy"), *classes)
            ),
            "model": self._made(("model", id(model)), lambda: code_digest(model)),
            "stream": self._made(
                ("stream code", key), lambda: _stream_code(named.get("stream"), given)
            ),
            "kernel": kernel_digest(*KERNEL),
        }

    def _made(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]


def _key(section: dict[str, Any]) -> str:
    return json.dumps(section, sort_keys=True, default=str)


def _checked(kind: Kind, part: Any, config: RunConfig) -> Any:
    if not isinstance(part, TYPES[kind]):
        name = getattr(config, kind)["name"]
        raise BadInput(
            f"{kind} {name!r} gives {f'{part!r:.60}'}: expected a {TYPES[kind].__name__}"
        )
    return part


def _stream_code(plugin: Any, stream: Stream) -> str:
    transforms = [s.transform for e in stream.experiences for s in (e.train, e.test) if s.transform]
    return code_digest(plugin, type(stream.preprocess), *{type(t): 0 for t in transforms})


def _weights_of(model: Any, parameters: dict[str, Any]) -> str:
    """A hash of the weights a model is pretrained with; empty if it has none."""
    fingerprint = getattr(model, "fingerprint", None)
    return str(fingerprint(**parameters)) if fingerprint else ""


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


def _steps(stream: Stream, trains_on: str) -> tuple[Step, ...]:
    experiences = stream.experiences
    if trains_on == "stream":  # once, and the same whatever the order
        parts = tuple(sorted(experiences, key=lambda e: e.task))
        train = Samples.concat([e.train for e in parts])
        nothing = train.select(train.index[:0])
        classes = tuple(range(stream.n_classes))
        everything = Experience("all", classes, 0, train, nothing, nothing)
        identity = digest("stream", [e.identity for e in parts])
        return (Step(everything, parts, identity),)
    cumulative = trains_on == "seen"
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
