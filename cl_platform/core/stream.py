"""Experiences, streams, and what a strategy may know of a stream."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from cl_platform.config import registry
from cl_platform.core.digests import digest
from cl_platform.core.inputs import Part, input_faults
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG
from cl_platform.core.samples import Samples, SeenOnce
from cl_platform.errors import BadInput, CurriculumError, printable

Scenario = Literal["class", "task", "domain"]


@dataclass(frozen=True, eq=False)
class Experience:
    """One step of a stream.

    Args:
        name: what people read, for example ``"0 1"`` or ``"rotation 30"``.
        classes: the class indices that occur in it, sorted.
        task: its task label: its index in the stream as given, whatever the order later; where a
            stream has columns of their own, that of the column that it belongs to.
        train, validation, test: its data; validation may be empty.
    """

    name: str
    classes: tuple[int, ...]
    task: int
    train: Samples
    validation: Samples
    test: Samples

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(str(self.name)))
        object.__setattr__(self, "classes", tuple(sorted({int(c) for c in self.classes})))

    def without_test_data(self) -> Experience:
        """Return the experience as curricula see it."""
        shared = self.train.source is self.test.source  # then test rows could be reached
        train = self.train.own() if shared else self.train
        return replace(self, train=train, test=self.test.emptied())

    def own(self) -> Experience:
        """Return the experience as strategies get it: no test data, and no rows but its own."""
        parts = {split: getattr(self, split).own() for split in ("train", "validation")}
        return replace(self, **parts, test=self.test.emptied())

    def seen_once(self, reader: str) -> Experience:
        """Return the experience with training data that the strategy `reader` cannot read."""
        hidden: Any = SeenOnce(len(self.train), reader)
        return replace(self, train=hidden)

    def subset(self, rows: Tensor) -> Experience:
        """Return the experience with the given rows (int64 or a mask) of its training data only."""
        return replace(self, train=self.train.select(rows))

    @cached_property
    def identity(self) -> str:
        """A hash of classes, task label, transformation and data, not of the place in an order."""
        data = [s.identity for s in (self.train, self.validation, self.test)]
        return digest(self.classes, self.task, data)

    def relabelled(self, labels: Sequence[int]) -> Experience:
        """Return the experience with class index `labels[c]` instead of c."""
        table = torch.tensor(labels)
        splits = ("train", "validation", "test")
        parts = {split: getattr(self, split).relabelled(table) for split in splits}
        return replace(self, classes=tuple(labels[c] for c in self.classes), **parts)

    def to(self, device: torch.device, moved: dict[int, Tensor]) -> Experience:
        parts = {s: getattr(self, s).to(device, moved) for s in ("train", "validation", "test")}
        if all(part is getattr(self, s) for s, part in parts.items()):
            return self
        experience = replace(self, **parts)
        vars(experience)["identity"] = self.identity  # which has been computed where it is cheap
        return experience


@dataclass(frozen=True, eq=False)
class Stream:
    """A named, immutable sequence of experiences.

    Args:
        name: what people read.
        scenario: ``class`` (which class, among all seen?), ``task`` (which class of the given
            task?) or ``domain`` (the same classes under changing inputs).
        experiences: in the order in which they will be learned.
        class_names: the name of each class index; its length is the size of the output.
        preprocess: normalisation and augmentation of its inputs.
        online: each sample may be seen once only (a single epoch).
        superclasses: what each class belongs to (an animal, a domain, an alphabet); empty if
            unknown.
        open: nobody knows what will follow: classes and task labels are numbered as they arrive,
            outputs grow, and a strategy sees as many experiences as there have been. A run on it
            can be continued with further experiences.
        columns: the evaluation tasks where they are not the experiences themselves: experiences
            that are scored, with task labels 0..n-1. Several experiences may belong to one column
            (it comes again); the last columns may have none: they are held out, which is to say
            scored and never learned. Test data of experiences are not used then.
    """

    plugin_kind: ClassVar[Literal["stream"]] = "stream"  # one that is made of another has it inside

    name: str
    scenario: Scenario
    experiences: tuple[Experience, ...]
    class_names: tuple[str, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    online: bool = False
    superclasses: tuple[str, ...] = ()
    open: bool = False
    columns: tuple[Experience, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(str(self.name)))
        for names in ("superclasses", "class_names"):
            printables = tuple(printable(str(name)) for name in getattr(self, names))
            object.__setattr__(self, names, printables)
        for parts in ("experiences", "columns"):
            object.__setattr__(self, parts, tuple(getattr(self, parts)))
        faults = list(self._faults())
        if faults:
            raise BadInput("\n".join(f"stream {self.name!r}: {fault}" for fault in faults))

    def _faults(self) -> Iterator[str]:
        if self.scenario not in get_args(Scenario):
            yield f"scenario {self.scenario!r} is none of {', '.join(get_args(Scenario))}"
        if not self.experiences:
            yield "it has no experience; give at least one"
        parts, what = (self.columns, "column") if self.columns else (self.experiences, "experience")
        tasks = sorted(e.task for e in parts)
        if tasks != list(range(len(tasks))):
            yield f"task labels {tasks} are not 0..{len(tasks) - 1}; give each {what} its own"
        learned = sorted({e.task for e in self.experiences})
        if self.columns and (learned != [*range(len(learned))] or len(learned) > len(tasks)):
            yield (
                f"its experiences belong to the columns {learned} of {len(tasks)}: number those "
                "that are learned from 0, and those held out behind them"
            )
        if self.columns and self.open:
            yield "an open stream has no columns of its own; leave one of them out"
        if self.superclasses and len(self.superclasses) != self.n_classes:
            yield f"{len(self.superclasses)} superclasses for {self.n_classes} classes"
        for e in self.experiences:
            if not len(e.train):
                yield f"experience {e.name!r} has no training data"
        for e in self.parts():
            outside = [c for c in e.classes if not 0 <= c < self.n_classes]
            if outside:
                bound = self.n_classes - 1
                yield f"experience {e.name!r} has classes {outside} outside 0..{bound}"
            for samples in (e.train, e.validation, e.test):
                strange = sorted(samples.classes - set(e.classes))
                if strange:
                    yield f"experience {e.name!r} has labels {strange} of no class of its own"
        without = [e.name for e in parts if not len(e.validation)]
        if 0 < len(without) < len(parts):
            yield (
                f"experience {without[0]!r} has no validation data, but others have: give every "
                "experience enough samples to hold some out, or none any (stream.validation=0)"
            )
        splits = {"training": "train", "validation": "validation", "test": "test"}
        yield from input_faults(
            [Part(e.name, s, getattr(e, n)) for e in self.parts() for s, n in splits.items()]
        )

    @staticmethod
    def from_arrays(x: Any, y: Any, x_test: Any = None, y_test: Any = None, **given: Any) -> Stream:
        """Make a stream of arrays or tensors; see ``streams.objects.from_arrays`` for the rest."""
        made: Stream = _from("arrays")(x, y, x_test, y_test, **given)
        return made

    @staticmethod
    def from_dataset(dataset: Any, test: Any = None, **given: Any) -> Stream:
        """Make a stream of a map-style data set of torch or torchvision.

        See ``streams.objects.from_datasets`` for what can be given; without test data, a share of
        each class is split off (``test_share=0.2``).
        """
        made: Stream = _from("dataset")(dataset, test, **given)
        return made

    @staticmethod
    def from_datasets(datasets: Sequence[Any], tests: Any = None, **given: Any) -> Stream:
        """Make a stream of several data sets, one experience each.

        See ``streams.objects.from_datasets``; ``scenario="domain"`` if they have the same classes.
        """
        made: Stream = _from("datasets")(datasets, tests, **given)
        return made

    @staticmethod
    def from_hub(dataset: Any, **given: Any) -> Stream:
        """Make a stream of a ``datasets.Dataset``, or a ``DatasetDict`` of train and test data.

        See the stream ``hub`` for what can be given.
        """
        made: Stream = registry.load("stream", "streams.hub:from_hub")(dataset, **given)
        return made

    def __len__(self) -> int:
        return len(self.experiences)

    def __getitem__(self, i: int) -> Experience:
        return self.experiences[i]

    def parts(self) -> tuple[Experience, ...]:
        """Return its experiences, and its columns where they are others."""
        return tuple(dict.fromkeys((*self.experiences, *self.columns)))

    @property
    def scored(self) -> tuple[Experience, ...]:
        """What is scored after each step: the columns in the order in which they are first learned,
        and behind them those held out."""
        if not self.columns:
            return self.experiences
        by_task = {e.task: e for e in self.columns}
        first = dict.fromkeys(e.task for e in self.experiences)
        return tuple(by_task[task] for task in dict.fromkeys((*first, *sorted(by_task))))

    @property
    def n_learned(self) -> int:
        """The number of different experiences, of which some may come again."""
        return len({e.task for e in self.experiences})

    @property
    def visits(self) -> tuple[int, ...]:
        """The place in `scored` of what each experience belongs to."""
        place = {e.task: i for i, e in enumerate(self.scored)}
        return tuple(place[e.task] for e in self.experiences)

    @property
    def held_out(self) -> tuple[int, ...]:
        """The places in `scored` of what is never learned."""
        return tuple(range(self.n_learned, len(self.scored)))

    def each(self, change: Callable[[Experience], Experience], **fields: Any) -> Stream:
        """Return the stream with each of its experiences and columns changed, and other fields."""
        changed = {e: change(e) for e in self.parts()}
        return replace(
            self,
            experiences=tuple(changed[e] for e in self.experiences),
            columns=tuple(changed[e] for e in self.columns),
            **fields,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, for example (1, 28, 28)."""
        return tuple(self.experiences[0].train.source.shape[1:])

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def reordered(self, order: Sequence[int]) -> Stream:
        """Return the same experiences in another order.

        Raises:
            CurriculumError: `order` is no permutation of 0..len(self)-1.
        """
        order = check_permutation(order, len(self), "order")
        return replace(self, experiences=tuple(self.experiences[i] for i in order))

    def regrouped(self, class_order: Sequence[int]) -> Stream:
        """Return experiences of the same sizes, filled with classes in another order.

        Raises:
            CurriculumError: `class_order` is no permutation of the classes.
            BadInput: classes occur in several experiences (domain streams).
        """
        if self.columns:
            raise BadInput(
                f"stream {self.name!r} is scored on other experiences than it trains on, so its "
                "classes cannot be dealt anew; use curriculum.level=experiences"
            )
        if sorted(c for e in self.experiences for c in e.classes) != list(range(self.n_classes)):
            raise BadInput(
                f"stream {self.name!r} has classes in no or in several experiences, so they have "
                "no order; use curriculum.level=experiences"
            )
        order = check_permutation(class_order, self.n_classes, "class order")
        groups, start = [], 0
        for task, e in enumerate(self.experiences):
            classes = tuple(sorted(order[start : start + len(e.classes)]))
            start += len(e.classes)
            # Of these classes' samples alone: what follows later does not change an experience.
            holders = [h for h in self.experiences if not {*classes}.isdisjoint(h.classes)]
            pools = {
                split: Samples.concat([_of_classes(getattr(h, split), classes) for h in holders])
                for split in ("train", "validation", "test")
            }
            groups.append(_class_experience(classes, task, self.class_names, pools))
        return replace(self, experiences=tuple(groups))

    def normalised_as(self, wanted: Preprocess) -> Stream:
        """Return the stream with the mean and std of `wanted`, in units of pixels from 0 to 255.

        Raises:
            BadInput: its inputs are no bytes, so their units are unknown.
        """
        dtype = self.experiences[0].train.source.dtype
        if dtype != torch.uint8:
            raise BadInput(
                f"stream {self.name!r} has inputs of {dtype}: a pretrained model takes images as "
                "uint8 (0..255); store them so, or give another model"
            )
        preprocess = replace(self.preprocess, mean=wanted.mean, std=wanted.std)
        return replace(self, preprocess=preprocess)

    def relabelled(self, labels: Sequence[int]) -> Stream:
        """Return the stream with class index `labels[c]` instead of c, names included.

        Raises:
            CurriculumError: `labels` is no permutation of the classes.
        """
        labels = check_permutation(labels, self.n_classes, "labels")
        given = sorted(range(self.n_classes), key=lambda c: labels[c])
        return self.each(
            lambda e: e.relabelled(labels),
            class_names=tuple(self.class_names[c] for c in given),
            superclasses=tuple(self.superclasses[c] for c in given if self.superclasses),
        )

    def followed_by(self, later: Stream) -> Stream:
        """Return the stream with the experiences of a later one behind its own.

        Classes are told by their names: known ones keep their numbers, new ones follow. Scenario
        and preprocessing stay.

        Raises:
            BadInput: the inputs have another shape, type or unit, or a stream has own columns.
        """
        if self.columns or later.columns:
            raise BadInput(
                f"streams {self.name!r} and {later.name!r} cannot follow each other: one is scored "
                "on other experiences than it trains on"
            )
        names = list(self.class_names)
        names += [name for name in later.class_names if name not in names]
        labels = [names.index(name) for name in later.class_names]
        parts = [replace(e.relabelled(labels), task=len(self) + e.task) for e in later.experiences]
        return replace(
            self,
            name=f"{self.name} + {later.name}",
            experiences=(*self.experiences, *parts),
            class_names=tuple(names),
            superclasses=self.superclasses if len(names) == self.n_classes else (),
        )

    def holding_out(self, chosen: Sequence[int | str]) -> Stream:
        """Return the stream with some of its evaluation tasks scored and never learned.

        What is learned keeps its order and gets the task labels 0, 1, ...; behind it stand those
        held out, in the order given, with the training data that probes may read.

        Args:
            chosen: by place, from 0, or by name: experiences, or columns where the stream has any.

        Raises:
            BadInput: there are none of these, nothing is left to be learned, or what is left
                trains classes of theirs.
        """
        parts = self.columns or self.experiences
        names = [e.name for e in parts]
        place: dict[int | str, int] = {name: i for i, name in reversed([*enumerate(names)])}
        place |= {i: i for i in range(len(parts))}
        held = [place.get(one, -1) for one in chosen]
        if -1 in held or len({*held}) < len(held) or len(held) >= len(parts):
            some = ", ".join(f"{i}: {name}" for i, name in enumerate(names[:10]))
            raise BadInput(
                f"held out of stream {self.name!r:.80}: {f'{list(chosen)}':.80}; give different "
                f"ones of its {len(parts)}, not all, by number or name ({some:.200})"
            )
        by_task, left = {e.task: e for e in parts}, {parts[i].task for i in held}
        apart = {c for i in held for c in parts[i].classes}
        for e in self.experiences:
            others = {*e.classes} - {*by_task[e.task].classes}
            if e.task not in left and not others.isdisjoint(apart):
                raise BadInput(
                    f"stream {self.name!r:.80} mixes experiences: {e.name!r:.60} trains classes "
                    "of what is to be held out; hold it out of the stream inside, "
                    "stream.inner.held_out"
                )
        order = [*(i for i in range(len(parts)) if i not in held), *held]
        label = {parts[i].task: task for task, i in enumerate(order)}
        renumbered = {e: replace(e, task=label[e.task]) for e in self.parts()}
        return replace(
            self,
            name=f"{self.name}, {len(held)} held out",
            experiences=tuple(renumbered[e] for e in self.experiences if e.task not in left),
            columns=tuple(renumbered[parts[i]] for i in order),
        )

    def also_scored_on(self, other: Stream) -> Stream:
        """Return the stream with the experiences of another one held out behind its own columns.

        Classes are told by their names: known ones keep their numbers, new ones follow, so that the
        output has room for them although nothing ever teaches them. Inputs are normalised as those
        of the stream itself.

        Raises:
            BadInput: the inputs have another shape, type or unit, or the stream is open.
        """
        columns = self.columns or self.experiences
        names = [*dict.fromkeys((*self.class_names, *other.class_names))]
        labels = [names.index(name) for name in other.class_names]
        several = len(other) > 1
        added = [
            replace(
                e.relabelled(labels),
                name=f"{other.name}: {e.name}" if several else other.name,
                task=len(columns) + i,
            )
            for i, e in enumerate(other.experiences)
        ]
        return replace(
            self,
            name=f"{self.name}, held out {other.name}",
            columns=(*columns, *added),
            class_names=tuple(names),
            superclasses=self.superclasses if len(names) == self.n_classes else (),
        )

    def by_arrival(self) -> tuple[Stream, tuple[int, ...]]:
        """Return the stream with classes and task labels numbered as they arrive, and the new
        number of each class."""
        arrived = list(dict.fromkeys(c for e in self.experiences for c in e.classes))
        arrived += [c for c in range(self.n_classes) if c not in {*arrived}]
        number = {c: i for i, c in enumerate(arrived)}
        labels = tuple(number[c] for c in range(self.n_classes))
        stream = self.relabelled(labels)
        parts = tuple(replace(e, task=task) for task, e in enumerate(stream.experiences))
        return replace(stream, experiences=parts), labels

    def arrived(self, k: int) -> int:
        """Return how many classes have arrived with the first k experiences of an open stream."""
        return 1 + max(c for e in self.experiences[:k] for c in e.classes)

    def without_test_data(self) -> Stream:
        """Return the stream as a curriculum may see it."""
        return self.each(Experience.without_test_data)

    @staticmethod
    def from_avalanche(benchmark: Any, name: str = "", scenario: Scenario | None = None) -> Stream:
        """Return the stream of a benchmark of Avalanche (needs ``cl-platform[avalanche]``).

        Its data are read once, through their transformations, and kept as tensors. See
        ``docs/avalanche.md`` for which benchmarks it takes.

        Args:
            benchmark: with a train and a test stream, of its classic or its new interface.
            name: what people read; the name of the benchmark's class if empty.
            scenario: None finds it: `task` where each experience has a task label of its own,
                `domain` where classes come again, else `class`.

        Raises:
            BadInput: says in one line why it is no stream.
        """
        module = import_module("cl_platform.avalanche.streams")
        stream: Stream = module.stream_of(benchmark, name, scenario)
        return stream

    def to_avalanche(self) -> Any:
        """Return a benchmark that Avalanche's own strategies train on: inputs as a model gets them,
        the same class indices, task labels in the task scenario; streams train, test and valid."""
        return import_module("cl_platform.avalanche.benchmarks").benchmark_of(self)

    def to(self, device: torch.device, moved: dict[int, Tensor] | None = None) -> Stream:
        """Return the stream with its data on a device; see :meth:`Samples.to` for `moved`."""
        moved = {} if moved is None else moved
        return self.each(lambda e: e.to(device, moved))

    def task_classes(self) -> Tensor:
        """Return which classes each task label allows, (n_tasks, n_classes) bool."""
        allowed = torch.zeros(len(self.scored), self.n_classes, dtype=torch.bool)
        for e in self.scored:
            allowed[e.task, list(e.classes)] = True
        return allowed


def _from(kind: str) -> Any:
    return registry.load("stream", f"streams.objects:from_{kind}")


def class_incremental(
    name: str,
    groups: Sequence[Sequence[int]],
    class_names: Sequence[str],
    train: Samples,
    test: Samples,
    validation: Samples | None = None,
    **fields: object,
) -> Stream:
    """Return a stream whose experiences partition the classes; `fields` go to :class:`Stream`."""
    names = tuple(str(name) for name in class_names)
    largest = max(int(s.y.max()) for s in (train, validation, test) if s is not None and len(s))
    if largest >= len(names):
        raise BadInput(
            f"stream {name!r}: labels reach {largest}, but there are {len(names)} class names "
            f"(0..{len(names) - 1}): name every class, or number the classes from 0"
        )
    chosen = [int(c) for g in groups for c in g]
    if sorted(chosen) != list(range(len(names))):
        raise BadInput(
            f"groups {[sorted(map(int, g)) for g in groups]} do not partition the classes "
            f"0..{len(names) - 1}: each must be in exactly one group"
        )
    pools = {"train": train, "validation": validation or train.emptied(), "test": test}
    experiences = tuple(
        _class_experience(tuple(map(int, g)), task, names, pools) for task, g in enumerate(groups)
    )
    settings: dict[str, object] = {"scenario": "class", **fields}
    return Stream(name, experiences=experiences, class_names=names, **settings)  # type: ignore[arg-type]


def _class_experience(
    classes: tuple[int, ...], task: int, names: tuple[str, ...], pools: dict[str, Samples]
) -> Experience:
    parts = {split: _of_classes(pool, classes) for split, pool in pools.items()}
    return Experience(" ".join(names[c] for c in classes), classes, task, **parts)


def _of_classes(samples: Samples, classes: Sequence[int]) -> Samples:
    return samples.select(torch.isin(samples.y.cpu(), torch.tensor(classes)))


def check_permutation(order: Sequence[int], n: int, what: str) -> tuple[int, ...]:
    """Return `order` as a tuple of ints.

    Raises:
        CurriculumError: it is no permutation of 0..n-1; the message lists the faults.
    """
    try:
        order = tuple(operator.index(i) for i in order)
    except TypeError as error:
        raise CurriculumError(f"{what} {order!r:.60}: expected whole numbers") from error
    missing, unknown = sorted(set(range(n)) - set(order)), sorted(set(order) - set(range(n)))
    if len(order) == n and not missing:
        return order
    faults = [f"{_list(missing)} missing"] * bool(missing)
    faults += [f"{_list(unknown)} unknown"] * bool(unknown)
    faults += [f"it has {len(order)} items, not {n}"] * (not faults)
    expected = f"expected a permutation of 0..{n - 1}"
    raise CurriculumError(f"{what} {order}: {expected}; {'; '.join(faults)}")


def _list(items: Sequence[int]) -> str:
    return f"{', '.join(map(str, items))} {'is' if len(items) == 1 else 'are'}"


@dataclass(eq=False)
class StreamInfo:
    """What a strategy gets before training: shapes, names and tools, no data.

    Args:
        scenario, class_names, input_shape, n_experiences: of the stream; in an open stream, of what
            has arrived. An experience that comes again counts once.
        input_dtype: type of the raw inputs (uint8 for images, int32 for token ids).
        task_classes: (n_tasks, n_classes) bool, the classes of each task label.
        preprocess: turns raw inputs into what the model sees.
        rng: the run's random generators.
        build_model: makes a model for this stream: freshly initialised, or as it was pretrained.
        frozen_model: gives one that stays as it is and is in no state; pretrained ones are shared.
        online: each sample is shown once; see :attr:`Strategy.needs_second_pass`.
        epochs, batch_size, build_optimizer, reset_optimizer: the run's, for strategies with a loop
            of their own; where they are lists over the experiences, the kernel sets the present
            one's before each step.
        device: where parameters, buffers and batches live.
        loss_classes: which classes compete in the loss of a class-incremental stream: all of it, or
            those seen so far. :meth:`Strategy.restrict` sees to it.
        seen: (n_classes,) bool, the classes of the experiences learned so far, the present one
            included; the kernel sets it before each step.
        label_smoothing: share of each label that is spread over all classes that compete.
        visits: which experience each step up to the present learns, numbered by their first visits;
            what is beyond its end is 0, 1, 2... The kernel sets it before each step.
        validated: the recorded accuracies on validation data of the experiences learned before the
            present one, in the order of learning, under the scenario's own mask; set before each
            step for strategies that declare `needs_validation`, else empty.
    """

    scenario: Scenario
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype
    n_experiences: int
    task_classes: Tensor
    preprocess: Preprocess
    rng: RNG
    build_model: Callable[[], torch.nn.Module]
    frozen_model: Callable[[], torch.nn.Module]
    device: torch.device
    loss_classes: Literal["all", "seen"]
    seen: Tensor
    online: bool = False
    label_smoothing: float = 0.0
    epochs: int = 1
    batch_size: int = 10
    build_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer | None] | None = None
    reset_optimizer: bool = True
    visits: list[int] = field(default_factory=list)
    validated: list[float] = field(default_factory=list)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def path(self) -> list[int]:
        """Return which experience each step up to the present learns; see `visits`."""
        step = self.rng.step
        return [*self.visits[:step], *range(len(self.visits), step)]
