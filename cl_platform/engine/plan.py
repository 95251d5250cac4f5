"""What a run will do: its stream in order, its steps, and the content address of each state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.config.per_experience import StepConfig, at
from cl_platform.config.run_config import RunConfig
from cl_platform.core.digests import digest
from cl_platform.core.order.pacing import Pacing
from cl_platform.core.order.teacher import Teacher, Visit
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG, global_generators
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream, StreamInfo
from cl_platform.engine.optimization import build_optimizer
from cl_platform.models.features import Features
from cl_platform.models.frozen import freeze
from cl_platform.models.outputs import giving_logits


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
        """Return the step with its data on a device; see :meth:`Samples.to` for `moved`."""
        sources = tuple(e.to(device, moved) for e in self.sources)
        return replace(self, experience=self.experience.to(device, moved), sources=sources)

    def data(self) -> Samples:
        """Return all samples that are trained on."""
        return Samples.concat([e.train for e in self.sources])

    def alone(self) -> str:
        """Return what the step adds to a content address if no other comes before it."""
        own = [e.identity for e in self.sources]
        return self.identity if len(own) == 1 else digest("together", own)

    def tasks(self) -> Tensor:
        """Return the task label of each sample of :meth:`data`, (n,) int64."""
        return torch.cat([torch.full_like(e.train.y, e.task) for e in self.sources])


@dataclass(frozen=True, eq=False)
class Reference:
    """The model that tells a pacing how difficult samples are, one for each step.

    Args:
        config: that it is trained by.
        key: of the untrained one.
        keys: of the scores by the trained one of each step, which name it.
    """

    config: RunConfig
    make_strategy: Callable[[], Strategy]
    key: str
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """A run before it runs. ``keys[k]`` addresses the state after k steps.

    Args:
        config: complete, with every default filled in.
        stream: in the order of learning.
        order: what the curriculum returned (experiences or classes of the stream as given).
        steps: one per experience, or a single one for strategies that train on the whole stream.
        code: digests of the code that takes part, by part.
        pretrained: whether the model's weights are the same in every run, whatever the seed.
        evaluator: digest of the code that evaluates states.
        scored: the same with the code of the metrics.
        measures: what is measured of states besides, by name, with a digest of how.
        data: digest of the stream as given: its facts and data, before any order or relabelling.
        labels: the class index in this run of each class of the stream as given.
        objects: the sections that the caller gave as objects.
        pacing: which samples the epochs have; None for all.
        reference: of a pacing that asks one.
        evaluators: by split; made by the first fold that needs one, shared by plans of a planner.
        teacher: decides the steps while the run goes on; then `steps` are those decided so far.
        visits: what it decided, one a step.
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
    pretrained: bool = False
    evaluator: str = ""
    scored: str = ""
    measures: dict[str, str] = field(default_factory=dict)
    data: str = ""
    labels: tuple[int, ...] = ()
    objects: tuple[str, ...] = ()
    pacing: Pacing | None = None
    reference: Reference | None = None
    evaluators: dict[str, Any] = field(default_factory=dict)
    teacher: Teacher | None = None
    visits: tuple[Visit, ...] = ()

    def at(self, k: int) -> StepConfig:
        """Return the settings of the k-th step, counted from 1; before it, those of the first."""
        return at(self.config, k)

    def on_device(self) -> Plan:
        """Return the plan with its data resident on the configuration's device."""
        device = torch.device(self.config.device)
        moved: dict[int, Tensor] = {}
        return replace(
            self,
            stream=self.stream.to(device, moved),
            steps=tuple(step.to(device, moved) for step in self.steps),
        )

    def evaluates(self, k: int) -> bool:
        """Return whether the state after k steps is a row of the matrix."""
        every = self.config.evaluate
        return k in (0, len(self.steps)) or (every != "last" and k % every == 0)

    def rows(self, n: int) -> list[int]:
        """Return after how many of the first n steps there are rows; the last of them has one."""
        return [k for k in range(n + 1) if k == n or self.evaluates(k)]

    def of_reference(self, k: int) -> Plan:
        """Return the plan by which the reference model learns what the k-th step trains on, and
        nothing else; it has no test data."""
        reference = self.reference
        assert reference is not None
        return replace(
            self,
            config=at(reference.config, k),
            stream=self.stream.each(lambda e: replace(e, test=e.test.emptied())),
            make_strategy=reference.make_strategy,
            steps=(self.steps[k - 1],),
            keys=(reference.key, reference.keys[k - 1]),
            run_id=f"{self.run_id}'s reference model of experience {k}",
            pacing=None,
            reference=None,
            measures={},
            evaluators={},
        )

    def info(self, rng: RNG, step: int = 0) -> StreamInfo:
        """Return what the strategy receives in ``setup``.

        Args:
            step: in an open stream, the step that it is set up for: it knows of no later one.
        """
        stream, device, config = self.stream, torch.device(self.config.device), self.at(1)
        n, n_classes, first = stream.n_learned, stream.n_classes, stream.n_classes
        tasks = len(stream.scored)
        if stream.open:
            n = tasks = max(1, step)
            n_classes, first = stream.arrived(n), stream.arrived(1)
        task_classes = stream.task_classes()[:tasks, :n_classes]
        if self.config.boundaries == "hidden":  # then all that is learned is one
            n, task_classes = 1, torch.ones(1, n_classes, dtype=torch.bool)
        # Functions that hold what they need: a method of the plan would lead to all data.
        shape, dtype = stream.input_shape, stream[0].train.source.dtype
        raw = torch.zeros(2, *shape, dtype=dtype, device=device)
        build = partial(_build, self.make_model, n_classes, raw, stream.preprocess)
        # A frozen model stays as it is, the classifier that nobody uses included.
        constant = partial(_build, self.make_model, first, raw, stream.preprocess)
        key = digest(self._model_identity(), first, self.config.device)
        frozen = partial(_pretrained, constant, key) if self.pretrained else None
        return StreamInfo(
            scenario=stream.scenario,
            class_names=stream.class_names[:n_classes],
            input_shape=shape,
            input_dtype=dtype,
            n_experiences=n,
            task_classes=task_classes.to(device),
            preprocess=stream.preprocess,
            rng=rng,
            build_model=build,
            frozen_model=frozen or (lambda: freeze(constant())),
            device=device,
            loss_classes=config.loss_classes,
            seen=torch.zeros(n_classes, dtype=torch.bool, device=device),
            online=stream.online,
            label_smoothing=config.label_smoothing,
            epochs=config.epochs,
            batch_size=config.batch_size,
            build_optimizer=partial(build_optimizer, config=config.optimizer),
            reset_optimizer=config.optimizer.reset,
        )

    def features(self, strategy: Strategy) -> Features | None:
        """Return the features of a strategy's frozen model, if it takes them and is pretrained."""
        if not (self.pretrained and strategy.takes_features):
            return None
        config, preprocess = self.config, self.stream.preprocess
        device, identity = torch.device(config.device), self._model_identity()
        return Features(strategy.model, identity, preprocess, config.precision, device)

    def _model_identity(self) -> str:
        return digest(self.code["model"], self.config.model, self.stream.input_shape)


class Learned:
    """What the first steps of a plan train on.

    Each step is gone through once, so that the look-up of a late one takes no longer.
    """

    def __init__(self, stream: Stream) -> None:
        self._identity = {e.task: e.identity for e in stream.scored}
        # The first step that trains on a column, by its task label, and on a class.
        self._columns: dict[int, int] = {}
        self._classes: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._visits: list[int] = []

    def follow(self, steps: Sequence[Step]) -> None:
        """Go through the steps that were added to a plan."""
        for step in steps[len(self._visits) :]:
            number = self._numbers.setdefault(step.experience.task, len(self._numbers))
            self._visits.append(number)
            for e in step.sources:
                self._columns.setdefault(e.task, len(self._visits))
                for c in e.classes:
                    self._classes.setdefault(c, len(self._visits))

    def columns(self, k: int) -> dict[int, str]:
        """Return the columns that the first k steps train on: their identities by task label, in
        the order of learning."""
        return {task: self._identity[task] for task, first in self._columns.items() if first <= k}

    def classes(self, k: int) -> set[int]:
        """Return the classes that the first k steps train on."""
        return {c for c, first in self._classes.items() if first <= k}

    def visits(self, k: int) -> list[int]:
        """Return which experience each of the first k steps learns, numbered by first visits."""
        return self._visits[:k]


_PRETRAINED: dict[str, nn.Module] = {}  # frozen, by identity


def _build(
    make: Callable[..., nn.Module], n_classes: int, raw: Tensor, preprocess: Preprocess
) -> nn.Module:
    """Build a model on the device of an example of stored inputs (B, ...), drawn from the global
    generator or as it was pretrained."""
    model = make(input_shape=tuple(raw.shape[1:]), n_classes=n_classes).to(raw.device)
    ours = type(model).__module__.startswith("cl_platform.")
    return model if ours else giving_logits(model, preprocess(raw), n_classes)


def _pretrained(build: Callable[[], nn.Module], key: str) -> nn.Module:
    """Return a pretrained model as a constant, which exists once in a process."""
    if key not in _PRETRAINED:
        _PRETRAINED.clear()  # one is enough: the runs of a process follow each other
        with global_generators(0):  # the draws that follow must not depend on who built it
            _PRETRAINED[key] = freeze(build())
    return _PRETRAINED[key]


def steps_of(stream: Stream, trains_on: str) -> tuple[Step, ...]:
    """Return the steps of a strategy that trains on its experience, all seen, or the stream."""
    experiences = stream.experiences
    if trains_on == "stream":  # once, and the same whatever the order
        parts = tuple(sorted(_different(experiences), key=lambda e: e.task))
        train = Samples.concat([e.train for e in parts])
        nothing = train.emptied()
        classes = tuple(range(stream.n_classes))
        everything = Experience("all", classes, 0, train, nothing, nothing)
        return (Step(everything, parts, digest("stream", [e.identity for e in parts])),)
    cumulative = trains_on == "seen"
    return tuple(
        Step(
            e.without_test_data(),
            _different(experiences[: k + 1]) if cumulative else (e,),
            e.identity,
        )
        for k, e in enumerate(experiences)
    )


def _different(experiences: Sequence[Experience]) -> tuple[Experience, ...]:
    """Return experiences without those that come again with the same data."""
    return tuple({e.identity: e for e in experiences}.values())
