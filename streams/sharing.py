"""Share out a data set over the experiences of a stream: the parameters of all streams of data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, Literal, get_type_hints

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.core.preprocess import StreamAugmentation
from cl_platform.core.stream import Scenario
from cl_platform.errors import BadInput
from streams.class_groups import (
    Class,
    chosen,
    class_groups,
    is_nested,
    listed,
    numbers_of,
    restricted,
)
from streams.data.datasets import Dataset
from streams.row_groups import SOURCE, group_rows
from streams.shots import Shots, with_shots

Fraction = Annotated[float, Field(ge=0, lt=1)]
Experiences = (
    PositiveInt | Sequence[PositiveInt] | Sequence[Sequence[Class]] | Literal["groups"] | None
)
Named = Sequence[NonNegativeInt | str] | None
HeldOut = Named | Sequence[Sequence[Class]]


def share_out(
    data: Dataset,
    *,
    scenario: Scenario = "class",
    classes: PositiveInt | Sequence[Class] | None = None,
    experiences: Experiences = None,
    by: str | None = None,
    boundaries: Sequence[float | str] | None = None,
    class_seed: NonNegativeInt | None = None,
    validation: Fraction = 0.0,
    samples: PositiveInt | None = None,
    shots: Shots = None,
    shots_seed: NonNegativeInt = 0,
    index_lists: str | None = None,
    test_samples: PositiveInt | None = None,
    normalise: bool = True,
    augmentation: StreamAugmentation = "none",
    online: bool = False,
    held_out: HeldOut = None,
) -> Stream:
    """Share out the classes of a data set over experiences, or its rows by a column.

    A class is given by its name, or by its number in the natural order of the names; where classes
    have numbers for names, a number is a name.

    Args:
        scenario: ``class`` hides the task label at test time, ``task`` gives it. ``domain`` has the
            same classes in every experience: of classes shared out it only distinguishes the first
            class of an experience from the second, and so on.
        classes: the classes to take, numbered in this order, or how many of the first; None takes
            all.
        experiences: their number (of sizes that differ by at most one), the number of classes of
            each, the list of classes of each, or ``groups`` for those of the data set
            (superclasses, alphabets). None: 5, or one of each class if there are fewer. With `by`:
            the number of intervals, the list of values of each, or None for one of each value.
        by: a column whose values share out the rows, such as ``task`` or ``time``; experiences may
            then have classes in common. Intervals have about equal numbers of training rows; rows
            of equal values stay together. Of several sources, ``source`` is the default.
        boundaries: the values of `by` at which the second experience and those after it begin.
        class_seed: seed of a random order of the classes; None keeps their order. (The curriculum
            orders the experiences.)
        validation: share of each class's training samples that is held out.
        samples: training samples of each experience, the same in every run; None takes all.
        shots: training samples of each class, drawn the same in every run; or a list over the
            experiences as the stream is given, null for all: ``[null, 5]`` is a whole base and
            sessions of 5, as the last item holds for all that follow.
        shots_seed: seed of that draw.
        index_lists: a folder of lists, ``session_1.txt`` for the first experience and so on, with
            the numbers of its training samples in the order of the data set; an experience without
            a list is drawn, and `shots` of one with a list is what it must hold.
        test_samples: test samples of each experience, for a quick look; they are part of the
            stream's name.
        normalise: by the mean and standard deviation of the training inputs; if not, images lie in
            [0, 1] and numbers stay as they are.
        online: train on each sample once only.
        held_out: experiences that are scored in every row and never learned: by number from 0, by
            name (with `by`, the value), or as lists of classes, which the experiences then lack.
            Their training data are for probes alone.

    Raises:
        BadInput: the experiences do not fit the classes or the column, or a class has too few
            samples.
    """
    if classes is not None:
        data = restricted(data, chosen(data, classes))
    absent = set(range(len(data.class_names))) - data.train.classes
    if absent:
        some = ", ".join(repr(data.class_names[c]) for c in sorted(absent)[:5])
        raise BadInput(
            f"{data.name} has no training rows of class {some:.100}: leave these classes out, "
            "stream.classes=[...]"
        )
    if by is None and experiences is None and data.column(SOURCE, data.train) is not None:
        by = SOURCE
    if by is None and boundaries is not None:
        raise BadInput("stream.boundaries are values of a column: name it, stream.by=COLUMN")
    if by is None and is_nested(held_out):
        data, experiences, held_out = _listed_apart(data, experiences, held_out, class_seed)
    elif by is None and is_nested(experiences):
        data, experiences = listed(data, experiences)  # type: ignore[arg-type]
    train, validating = _validating(data, validation)
    parts = {"train": train, "validation": validating, "test": data.test}
    fields: dict[str, Any] = {
        "preprocess": Preprocess(*scaling(data, normalise), augmentation),
        "online": online,
        "superclasses": _superclasses(data),
    }
    if by is None:
        stream = _of_classes(data, parts, scenario, experiences, class_seed, fields)
    elif class_seed is not None:
        raise BadInput(f"stream.class_seed orders classes, and stream.by={by} shares out rows")
    else:
        groups, note = group_rows(data, parts, by, experiences, boundaries)
        name = stream_name("split", noted(data, note))
        stream = Stream(name, scenario, _of_rows(groups), data.class_names, **fields)
    if shots is not None or index_lists is not None:
        if samples is not None:
            raise BadInput("stream.samples and stream.shots both thin the data: give one of them")
        stream = with_shots(stream, shots, shots_seed, index_lists)
    stream = _thinned(stream, samples, test_samples)
    stream = _by_position(stream) if scenario == "domain" and by is None else stream
    return stream.holding_out(held_out) if held_out else stream  # type: ignore[arg-type]


def _listed_apart(
    data: Dataset, experiences: Any, held_out: Any, class_seed: int | None
) -> tuple[Dataset, list[list[int]], list[int]]:
    """Return the data with the classes held out behind the others, the classes of every experience,
    and which of these are held out."""
    if experiences == "groups" or class_seed is not None:
        raise BadInput(
            "stream.held_out as lists of classes goes with numbers or lists of experiences, and "
            "without class_seed; else give experiences by number or name"
        )
    held = numbers_of(data, [c for group in held_out for c in group], "held_out")
    if is_nested(experiences):
        lists = [numbers_of(data, group, "experiences") for group in experiences]
        own = [c for group in lists for c in group]
    else:
        own = [c for c in range(len(data.class_names)) if c not in held]
        rest = restricted(data, own)
        lists = [[own[c] for c in group] for group in class_groups(rest, experiences, None)]
    if both := {*own} & {*held}:
        names = [data.class_names[c] for c in both]
        raise BadInput(f"stream.held_out: {names[:5]} are in stream.experiences as well")
    ends = iter(held)
    lists += [[next(ends) for _ in group] for group in held_out]
    order = [*sorted(own), *sorted(held)]
    place = {c: i for i, c in enumerate(order)}
    groups = [[place[c] for c in group] for group in lists]
    return restricted(data, order), groups, [*range(len(groups) - len(held_out), len(groups))]


def _of_classes(
    data: Dataset,
    parts: Mapping[str, Samples],
    scenario: Scenario,
    experiences: Any,
    class_seed: int | None,
    fields: Mapping[str, Any],
) -> Stream:
    groups = class_groups(data, experiences, class_seed)
    stream = class_incremental(
        stream_name("split", data),
        groups,
        data.class_names,
        **parts,
        scenario="task" if scenario == "task" else "class",
        **fields,
    )
    if experiences != "groups" or class_seed is not None:
        return stream
    named = zip(stream.experiences, data.groups, strict=True)
    return replace(stream, experiences=tuple(replace(e, name=name) for e, name in named))


def _of_rows(groups: Mapping[str, Mapping[str, Samples]]) -> tuple[Experience, ...]:
    """Return an experience of each group of rows, whose classes are those that occur in it."""
    experiences = []
    for task, (name, parts) in enumerate(groups.items()):
        classes: set[int] = set().union(*(samples.classes for samples in parts.values()))
        experiences.append(Experience(name, tuple(classes), task, **parts))
    return tuple(experiences)


def chained(
    read: Callable[..., Any],
    share: Callable[..., Any] = share_out,
    without: Iterable[str] = (),
    **defaults: Any,
) -> Callable[..., Any]:
    """Return ``share(read(...), ...)`` as one function of the parameters of both.

    Its docstring is that of `read`. A parameter that both have goes to both.

    Args:
        share: takes what `read` returns as its first argument, and keywords.
        without: parameters of `share` that are left out.
        defaults: of parameters of `share`, where they are other ones.
    """
    first = inspect.signature(read).parameters
    _, *rest = inspect.signature(share).parameters.values()
    second = {
        p.name: p.replace(default=defaults.get(p.name, p.default), kind=p.KEYWORD_ONLY)
        for p in rest
        if p.name not in without
    }

    @wraps(read)
    def both(*args: Any, **given: Any) -> Any:
        found = read(*args, **{k: v for k, v in given.items() if k in first or k not in second})
        return share(found, **defaults | {k: v for k, v in given.items() if k in second})

    parameters = [*first.values(), *(p for p in second.values() if p.name not in first)]
    hints = get_type_hints(share, include_extras=True) | get_type_hints(read, include_extras=True)
    both.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    both.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return both


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Split into training and validation samples, within each class and the same in every run."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(len(samples), dtype=torch.bool)
    for c in samples.y.unique():
        rows = torch.nonzero(samples.y == c).flatten()
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        count = max(1, int(share * len(rows))) if share and len(rows) > 1 else 0
        chosen[shuffled[:count]] = True
    return samples.select(~chosen), samples.select(chosen)


def scaling(
    data: Dataset, normalise: bool
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and the divisor of each channel; None leaves inputs as they are."""
    if data.mean is None or data.std is None:
        return None, None
    if normalise:
        return data.mean, tuple(std or 1.0 for std in data.std)  # of a channel that does not vary
    source = data.train.source
    if source.is_floating_point():
        return None, None
    largest = 255.0 if data.train.mapped else float(source.max())
    return tuple(0.0 for _ in data.mean), tuple(largest for _ in data.std)


def stream_name(kind: str, data: Dataset) -> str:
    """Return the name of a stream of a data set, which says how much of it this is."""
    return f"{kind}-{data.name} ({data.note})" if data.note else f"{kind}-{data.name}"


def noted(data: Dataset, note: str) -> Dataset:
    """Return a data set with one more note on how much of it this is."""
    return replace(data, note=", ".join(filter(None, [data.note, note])))


def _validating(data: Dataset, share: float) -> tuple[Samples, Samples]:
    if data.validation is None:
        return hold_out(data.train, share)
    if share:
        raise BadInput(
            f"stream.validation={share}: {data.name} has validation data of its own; leave it out"
        )
    return data.train, data.validation


def _superclasses(data: Dataset) -> Sequence[str]:
    group_of = {c: name for name, group in data.groups.items() for c in group}
    complete = len(group_of) == len(data.class_names)
    return [group_of[c] for c in sorted(group_of)] if complete else ()


def _thinned(stream: Stream, samples: int | None, test_samples: int | None) -> Stream:
    parts = list(stream.experiences)
    if samples is not None:
        parts = [e.subset(_some(len(e.train), samples)) for e in parts]
    if test_samples is not None:
        parts = [replace(e, test=e.test.select(_some(len(e.test), test_samples))) for e in parts]
        stream = replace(stream, name=f"{stream.name} ({test_samples} test samples each)")
    return replace(stream, experiences=tuple(parts))


def _some(n: int, wanted: int) -> Tensor:
    """Draw `wanted` of `n` rows at random, in order; all of them if there are fewer."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(n, generator=generator)[:wanted].sort().values


def _by_position(stream: Stream) -> Stream:
    """Relabel each class by its position within its experience.

    Source: the domain-incremental Split MNIST of van de Ven & Tolias 2019 (first or second digit).
    """
    sizes = {len(e.classes) for e in stream.experiences}
    if len(sizes) > 1:
        raise BadInput(
            f"a domain stream has the same classes in every experience; these have "
            f"{sorted(sizes)}: give a number of experiences that divides the classes"
        )
    experiences = []
    for e in stream.experiences:
        position = {c: i for i, c in enumerate(e.classes)}
        experiences.append(e.relabelled([position.get(c, 0) for c in range(stream.n_classes)]))
    return replace(
        stream,
        scenario="domain",
        experiences=tuple(experiences),
        class_names=tuple(f"class {i}" for i in range(sizes.pop())),
        superclasses=(),
    )
