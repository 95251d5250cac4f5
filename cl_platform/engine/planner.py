"""From configurations to plans: what many plans have in common is loaded, arranged and hashed once.

The key of a state is a digest chain: key(0) covers the settings, the data and the code that takes
part; key(k) covers key(k-1) and the k-th step. It holds nothing that cannot change a bit.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import isroutine
from typing import Any

import numpy as np

from cl_platform.config import registry
from cl_platform.config.per_experience import at, distinct, item, series
from cl_platform.config.registry import Kind
from cl_platform.config.run_config import BESIDE_TRAINING, RunConfig
from cl_platform.config.signatures import check_section, instantiate
from cl_platform.core.code_digest import code_digest, kernel_digest
from cl_platform.core.digests import digest
from cl_platform.core.order.curriculum import Curriculum, Level, arrange, ask
from cl_platform.core.order.pacing import UNTRAINED, Pacing
from cl_platform.core.order.teacher import Teacher
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import seed_for
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.fit import augmentation_of, boundary_faults, training_faults
from cl_platform.engine.measures.measuring import wanted
from cl_platform.engine.optimization import device_fault, try_optimizer, try_schedule
from cl_platform.engine.plan import Plan, Reference, Step, steps_of
from cl_platform.engine.teaching import teaching_faults
from cl_platform.errors import BadInput, ConfigError, say_once
from cl_platform.metrics.registry import registered_functions

TYPES: dict[Kind, type] = {
    "stream": Stream,
    "strategy": Strategy,
    "curriculum": Curriculum,
    "pacing": Pacing,
}
# The kernel's modules that every training enters, by what it really runs (a test traces it). What
# only some plugins train with, such as replay buffers, is in the digest of their own code.
TRAINING = (
    "cl_platform.config.per_experience",
    "cl_platform.core.augmentation",
    "cl_platform.core.batch",
    "cl_platform.core.digests",  # which name the data
    "cl_platform.core.inputs",
    "cl_platform.core.preprocess",
    "cl_platform.core.rng",
    "cl_platform.core.samples",
    "cl_platform.core.strategy",
    "cl_platform.core.stream",
    "cl_platform.engine.checkpoint",
    "cl_platform.engine.finite",
    "cl_platform.engine.fold",
    "cl_platform.engine.growth",
    "cl_platform.engine.groups",
    "cl_platform.engine.machine.choices",
    "cl_platform.engine.machine.compiled",
    "cl_platform.engine.machine.uncompiled",
    "cl_platform.engine.optimization",
    "cl_platform.engine.plan",
    "cl_platform.engine.steps",
    "cl_platform.engine.training",
    "cl_platform.models.frozen",
    "cl_platform.models.outputs",
    "cl_platform.models.precision",
    "cl_platform.models.work",
)
PARALLEL = ("cl_platform.parallel.team",)  # of runs of several processes
FEATURES = ("cl_platform.models.features",)  # of strategies that take those of a frozen model
SCORING = ("cl_platform.engine.evaluation", "cl_platform.engine.pacing.scores")
PACED = ("cl_platform.core.order.pacing", "cl_platform.engine.pacing.epochs", *SCORING)
PLAIN = "finetune"  # the strategy of reference models
EVALUATION = (
    "cl_platform.core.matrix",
    "cl_platform.core.predictions",
    "cl_platform.engine.evaluation",
    "cl_platform.engine.finite",
    "cl_platform.models.work",
)
METRICS = (
    "cl_platform.metrics.few_shot",
    "cl_platform.metrics.matrix_metrics",
    "cl_platform.metrics.measured",
    "cl_platform.metrics.prediction_metrics",
)
# How many of each kind a planner caches; the least recently used goes first. What holds data of its
# own (prepared test data take up to 1 GiB each) is cached less than what refers to it.
LIMITS = {"evaluators": 3, "relabelled": 4, "normalised": 4, "by class": 16, "stream": 32}
LIMIT = 4096


def make_plan(config: RunConfig, objects: dict[str, Any] | None = None) -> Plan:
    """Return the plan of a complete configuration.

    Args:
        objects: plugins that the caller has as objects, by section: a Stream, a Strategy (used as a
            template), a Curriculum, a model class.

    Raises:
        ClpError: the data cannot be loaded, the order is no permutation, or the parts do not fit.
    """
    return Planner(objects)(config)


@dataclass(frozen=True, eq=False)
class _Arranged:
    """A stream on its way into a plan.

    Args:
        data: names the stream before it is ordered.
        labels: the run's index of each class of the stream as given.
        unordered: the stream with the run's class indices and normalisation.
        order: what the curriculum returned; stream and steps: in that order.
    """

    data: str
    labels: tuple[int, ...]
    unordered: Stream
    order: tuple[int, ...]
    stream: Stream
    steps: tuple[Step, ...]


class Planner:
    """Makes plans, and caches what several of them have in common.

    Args:
        objects: as for :func:`make_plan`.
        check_device: whether the device must be usable on this machine.
    """

    def __init__(self, objects: dict[str, Any] | None = None, *, check_device: bool = True) -> None:
        self.objects = objects or {}
        self.check_device = check_device
        self._cache: dict[str, OrderedDict[Any, Any]] = {}

    def __call__(self, config: RunConfig, order: Sequence[int] | None = None) -> Plan:
        """Return the plan of a configuration; see :func:`make_plan`.

        Args:
            order: what the curriculum returned before, so that it is not asked again.
        """
        self._try_torch(config)
        template: Strategy = self._part("strategy", config)
        curriculum: Curriculum = self._part("curriculum", config)
        given = self.stream(config)
        _check_fit(config, template, given)
        model = self.objects.get("model") or registry.load("model", config.model["name"])
        parameters = {k: v for k, v in config.model.items() if k != "name"}
        preprocess = _of_model(model, "preprocess", parameters)
        arranged = self._arrange(config, given, preprocess, template, curriculum, order)
        augmentation = augmentation_of(config)
        faults = [*training_faults(config, template, given, arranged.steps, augmentation)]
        faults += boundary_faults(config, template, given)
        teacher = curriculum if isinstance(curriculum, Teacher) else None
        if teacher is not None:
            faults += teaching_faults(config, teacher, template, given)
        if faults:
            raise ConfigError("\n".join(faults))
        pretrained = bool(_of_model(model, "pretrained", parameters))
        if template.freezes_model and not pretrained:
            say_once(
                f"strategy {config.strategy['name']!r} leaves the model as it is, and "
                f"{config.model['name']!r} has random weights: give a pretrained model"
            )
        code = self._code(config, template, model, arranged.unordered)
        stream = arranged.stream
        if config.augmentation is not None:
            changes: Any = augmentation or "none"
            stream = replace(stream, preprocess=replace(stream.preprocess, augmentation=changes))
            classes = tuple(type(a) for a in augmentation)
            code["augmentation"] = self._cached("code", classes, lambda: code_digest(*classes))
        if weights := _of_model(model, "fingerprint", parameters):
            code["model"] = digest(code["model"], weights)
        pacing: Pacing | None = self._part("pacing", config) if config.pacing else None
        reference = None
        if pacing is not None:
            if pacing.scores not in UNTRAINED:
                reference = self._reference(config, pacing, model, arranged, code)
            own = self._cached("code", type(pacing), lambda: code_digest(type(pacing)))
            code["pacing"] = digest(own, kernel_digest(*PACED))
        keys = self._keys(config, template, arranged, code, reference)
        evaluator = kernel_digest(*EVALUATION)
        columns = [e.identity for e in arranged.stream.scored]
        functions = [f for _, f in sorted(registered_functions().items())]
        metrics = self._cached("code", tuple(functions), lambda: code_digest(*functions))
        scored = digest(evaluator, kernel_digest(*METRICS), metrics)
        measures = wanted(config)
        deciding = [measures] if measures else []
        if teacher is not None:  # its decisions are not known yet
            arranged, keys = replace(arranged, steps=()), keys[:1]
            deciding += [self._cached("code", type(teacher), lambda: code_digest(type(teacher)))]
        # Then each order has test data of its own.
        own_data = curriculum.level == "classes" or given.open
        return Plan(
            config=config,
            stream=stream,
            order=arranged.order,
            make_strategy=template.fresh,
            make_model=partial(model, **parameters),
            steps=arranged.steps,
            keys=keys,
            run_id=digest("run", keys[-1], columns, _settings(config), scored, *deciding)[:12],
            code=code,
            pretrained=pretrained,
            evaluator=evaluator,
            scored=scored,
            measures=measures,
            data=self._cached("given", _key(config.stream), lambda: _identity(given)),
            labels=arranged.labels,
            objects=tuple(self.objects),
            teacher=teacher,
            pacing=pacing,
            reference=reference,
            evaluators={}
            if own_data
            else self._cached("evaluators", (arranged.data, config.device), dict),
        )

    def stream(self, config: RunConfig) -> Stream:
        """Return the stream of a configuration as given, before any curriculum."""
        made: Stream = self._cached(
            "stream", _key(config.stream), lambda: self._part("stream", config)
        )
        return made

    def knows(self, config: RunConfig) -> bool:
        """Return whether the stream of a configuration is cached."""
        return _key(config.stream) in self._cache.get("stream", ())

    def adopt(self, config: RunConfig, stream: Stream) -> None:
        """Cache a stream that was built elsewhere as that of a configuration."""
        self._cached("stream", _key(config.stream), lambda: stream)

    def _try_torch(self, config: RunConfig) -> None:
        """Raise ConfigError for the faults that only torch finds: optimizer, schedule, device."""
        faults = self._cached(
            "faults",
            (repr((config.optimizer, config.schedule)), config.device),
            lambda: [
                *(f for c in distinct(config) for f in try_optimizer(c.optimizer)),
                *(f for c in distinct(config) for f in try_schedule(c.optimizer, c.schedule)),
                *(device_fault(config.device) if self.check_device else ()),
            ],
        )
        if faults:
            raise ConfigError("\n".join(dict.fromkeys(faults)))

    def _part(self, kind: Kind, config: RunConfig) -> Any:
        part = self.objects.get(kind)
        part = instantiate(kind, getattr(config, kind)) if part is None else part
        if not isinstance(part, TYPES[kind]):
            shown = f"{part!r:.60}"
            if " object at 0x" in shown:
                shown = f"an object of {type(part).__name__}"
            raise BadInput(
                f"{kind} {getattr(config, kind)['name']!r} gives {shown}: expected a "
                f"{TYPES[kind].__name__}"
            )
        return part

    def _arrange(
        self,
        config: RunConfig,
        given: Stream,
        preprocess: Any,
        template: Strategy,
        curriculum: Curriculum,
        order: Sequence[int] | None,
    ) -> _Arranged:
        """Return the stream in order, with its steps.

        Curricula see the stream as given. The class indices of the seed come before any order, so
        that all orders of a seed share their beginnings.
        """
        data = _key(config.stream)
        if order is None:
            asked = (data, _key(config.curriculum), config.seed)
            order = self._cached("order", asked, lambda: ask(given, curriculum, config.seed))
        stream, labels = given, list(range(given.n_classes))
        if config.permute_labels:
            rng = np.random.default_rng(seed_for(config.seed, 0, "labels"))
            labels = [int(c) for c in rng.permutation(given.n_classes)]
            data = f"{data} labels {config.seed}"
            stream = self._cached("relabelled", data, lambda: given.relabelled(labels))
        if isinstance(preprocess, Preprocess):
            data, unscaled = f"{data} as {preprocess!r}", stream
            stream = self._cached("normalised", data, lambda: unscaled.normalised_as(preprocess))
        level: Level = curriculum.level
        positions = [labels[c] for c in order] if level == "classes" else list(order)
        cached = "by class" if level == "classes" else "arranged"
        arranged, kind = (data, level, tuple(order)), template.trains_on
        if given.open:
            ordered, arrival = self._cached(
                cached,
                ("arrival", *arranged),
                lambda: arrange(stream, level, positions).by_arrival(),
            )
            labels = [arrival[c] for c in labels]
        else:
            ordered = self._cached(cached, arranged, lambda: arrange(stream, level, positions))
        same = kind == "stream" and level == "experiences"  # whatever the order
        steps = self._cached(
            "steps" if cached == "arranged" else cached,
            ("steps", kind, data if same else arranged),
            lambda: steps_of(ordered, kind),
        )
        return _Arranged(data, tuple(labels), stream, tuple(order), ordered, steps)

    def _code(
        self, config: RunConfig, template: Strategy, model: Any, stream: Stream
    ) -> dict[str, str]:
        """Return digests of the code of each part.

        Of a stream that is what changes its samples whenever they are read. The code that builds
        it is covered by what it built: the identities of the data are in the keys.
        """
        plugin: Any = type(template)  # what its name gives, if that is a class
        if "strategy" not in self.objects:
            plugin = registry.load("strategy", config.strategy["name"])
        inner = [m for m in template.modules() if isinstance(m, Strategy)]
        classes = (
            *(type(m) for m in template.modules()),
            *(c for m in inner for c in m.other_code()),
        )
        read = [m.fingerprint() for m in inner]
        samples = [s for e in stream.parts() for s in (e.train, e.test)]
        readers = {type(s.transform): 0 for s in samples if s.transform}
        types = (type(stream.preprocess), *readers)
        return {
            "strategy": self._cached(
                "code", (plugin, classes), lambda: code_digest(plugin, *classes)
            ),
            "model": self._cached("code", model, lambda: code_digest(model)),
            "stream": self._cached("code", types, lambda: code_digest(*types)),
            "kernel": kernel_digest(
                *TRAINING,
                *(FEATURES if template.takes_features else ()),
                *(PARALLEL if config.processes > 1 else ()),
            ),
            **({"files of the strategy": digest(*read)} if any(read) else {}),
        }

    def _reference(
        self,
        config: RunConfig,
        pacing: Pacing,
        model: Any,
        arranged: _Arranged,
        code: dict[str, str],
    ) -> Reference:
        """Return the reference model of a pacing: plain training with the settings of the run."""
        section, _ = check_section("strategy", {"name": PLAIN}, "strategy")
        changes = {"strategy": section, "pacing": None, "seed": pacing.reference_seed}
        changes |= {"evaluate_every": 0, "count_flops": False, "processes": 1}
        config = config.model_copy(update=changes)
        plain: Strategy = instantiate("strategy", section)
        code = {
            **code,
            **self._code(config, plain, model, arranged.unordered),
            "model": code["model"],
        }
        (key,) = self._keys(config, plain, replace(arranged, steps=()), code)
        trained = [
            digest(key, step.alone(), *_changes(config, k, 1))
            for k, step in enumerate(arranged.steps, 1)
        ]
        scoring = kernel_digest(*SCORING)
        keys = tuple(digest("scores", one, scoring) for one in trained)
        return Reference(config, plain.fresh, key, keys)

    def _keys(
        self,
        config: RunConfig,
        template: Strategy,
        arranged: _Arranged,
        code: dict[str, str],
        reference: Reference | None = None,
    ) -> tuple[str, ...]:
        """Return the address of the state after each number of steps."""
        settings = _settings(at(config, 1))
        # Its order, and its data, show in the steps.
        for name in ("curriculum", "stream", "evaluate", *BESIDE_TRAINING):
            settings.pop(name, None)
        settings["device"] = config.device.partition(":")[0]
        if config.evaluate_every or config.early_stopping or template.needs_validation:
            # Then a state depends on accuracies.
            settings["evaluator"] = kernel_digest(*EVALUATION)
        stream, steps = arranged.stream, arranged.steps
        later = _per_experience(settings["strategy"], template, len(steps))
        if stream.open:
            facts = _open_facts(stream, 1)
        else:
            facts = self._cached("facts", arranged.data, lambda: _facts(arranged.unordered))
        keys = [digest("state", settings, facts, code)]
        for k, step in enumerate(steps):
            own = [{name: values[k] for name, values in later.items()}] if later else []
            own += _changes(config, k + 1, k)
            arrived = [_open_facts(stream, k + 1)] if stream.open else []
            by = [reference.keys[k]] if reference else []
            keys.append(digest(keys[-1], step.identity, *own, *arrived, *by))
        return tuple(keys)

    def _cached(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        found = self._cache.setdefault(kind, OrderedDict())
        if key not in found:
            found[key] = make()
            if len(found) > LIMITS.get(kind, LIMIT):
                found.popitem(last=False)
        found.move_to_end(key)
        return found[key]


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of a run; a pacing is one of them only where there is one, and so are
    hidden boundaries."""
    usual = {"pacing": None, "boundaries": "known"}
    settings = config.model_dump()
    return {k: v for k, v in settings.items() if k not in usual or v != usual[k]}


def _changes(config: RunConfig, k: int, before: int) -> list[dict[str, Any]]:
    """Return the settings of the k-th step, unless they are those of one before it."""
    if all(item(values, k) == item(values, before) for values in series(config).values()):
        return []
    now, then = (
        {"epochs": own.epochs, "optimizer": own.optimizer.model_dump()}
        for own in (at(config, k), at(config, before))
    )
    return [now] if now != then else []


def _key(section: dict[str, Any]) -> str:
    return json.dumps(section, sort_keys=True, default=str)


def _of_model(model: Any, name: str, parameters: dict[str, Any]) -> Any:
    """Return what a model states of itself, as a value or as a static method of its parameters."""
    stated = getattr(model, name, None)
    return stated(**parameters) if isroutine(stated) else stated


def _per_experience(
    section: dict[str, Any], strategy: Strategy, n: int, where: str = "strategy"
) -> dict[str, Sequence[Any]]:
    """Take out of a section the hyper-parameters of which each step depends on its own item."""
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


def _identity(stream: Stream) -> str:
    """Return a digest of a stream as it is given, which tells it from others of its name."""
    identities = [[e.identity for e in parts] for parts in (stream.experiences, stream.columns)]
    facts = [stream.scenario, stream.class_names, repr(stream.preprocess), stream.online]
    return digest("stream as given", facts, *(found for found in identities if found))


def _facts(stream: Stream) -> list[Any]:
    """Return what a stream contributes to every state: names, preprocessing, and data; and the
    classes of each task where its experiences do not say them."""
    identities = sorted(e.identity for e in stream.experiences)
    facts = [
        stream.scenario,
        stream.class_names,
        repr(stream.preprocess),
        stream.online,
        identities,
    ]
    if {*stream.columns} <= {*stream.experiences}:
        return facts
    return [*facts, sorted((e.task, e.classes) for e in stream.columns)]


def _open_facts(stream: Stream, k: int) -> list[Any]:
    """Return what an open stream has shown by the k-th experience, besides the experiences."""
    names = stream.class_names[: stream.arrived(k)]
    return ["open", stream.scenario, names, repr(stream.preprocess), stream.online]


def _check_fit(config: RunConfig, strategy: Strategy, stream: Stream) -> None:
    faults = []
    if strategy.needs_task and stream.scenario != "task":
        faults.append(
            f"strategy {config.strategy['name']!r} needs the task label at test time, but stream "
            f"{stream.name!r} is {stream.scenario}-incremental; give --scenario task"
        )
    if stream.online and any(c.epochs > 1 for c in distinct(config)):
        faults.append(f"epochs={config.epochs}: an online stream is seen once; give epochs=1")
    name = config.strategy["name"]
    if stream.open and strategy.trains_on == "stream":
        faults.append(
            f"strategy {name!r} trains on the whole stream at once; an open one has no end"
        )
    if stream.open and strategy.needs_horizon:
        faults.append(
            f"strategy {name!r} is set up for a known number of experiences, and that of an open "
            "stream is not: leave stream.open out"
        )
    if strategy.needs_validation and not all(len(e.validation) for e in stream.scored):
        faults.append(
            f"strategy {name!r} goes by accuracies on validation data, and stream {stream.name!r} "
            "has none: give stream.validation, say 0.1"
        )
    if stream.open and config.permute_labels:
        faults.append("permute_labels: an open stream numbers its classes as they arrive")
    faults += [
        f"experience {e.name!r} of stream {stream.name!r} has no test data to be scored on"
        for e in stream.scored
        if not len(e.test)
    ]
    if stream.columns and not strategy.revisits and stream.n_learned < len(stream):
        faults.append(
            f"strategy {name!r} learns each experience once, and in stream {stream.name!r} they "
            "come again"
        )
    if strategy.needs_task and stream.held_out:
        faults.append(
            f"strategy {name!r} needs the task label at test time, and the columns held out of "
            f"stream {stream.name!r} have labels that it never learns"
        )
    if config.probe is not None:
        faults += _probe_faults(config.probe.columns, stream)
    try:
        strategy.check(stream.task_classes())
    except BadInput as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    if stream.online and strategy.needs_second_pass:
        say_once(
            f"strategy {config.strategy['name']!r} reads the data of an experience besides its "
            f"batches (needs_second_pass), although stream {stream.name!r} is online"
        )


def _probe_faults(columns: str, stream: Stream) -> Iterator[str]:
    """Yield why the columns of a stream cannot be probed."""
    if columns == "held_out" and not stream.held_out:
        yield (
            f"probe: stream {stream.name!r} has no columns held out; give stream.held_out, or "
            "probe.columns=all"
        )
    for j, e in enumerate(stream.scored):
        if not len(e.train) and (columns == "all" or j in stream.held_out):
            yield f"probe: column {e.name!r} of stream {stream.name!r} has no training samples"
