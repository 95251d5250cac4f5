"""Streams of images and numbers; those of texts are in ``streams.text``.

A new stream is a function that returns a ``Stream``, and an entry point that names it. The
parameters of the function are those of the stream: ``--set stream.experiences=2``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.core.preprocess import StreamAugmentation
from cl_platform.core.samples import Transform
from cl_platform.core.stream import Scenario
from cl_platform.errors import BadInput
from streams.data.datasets import Dataset, load_dataset
from streams.transforms import PermutePixels, Rotate

Heads = Literal["shared", "task"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def split(
    dataset: str | Dataset,
    *,
    scenario: Scenario = "class",
    classes: PositiveInt | Sequence[NonNegativeInt] | None = None,
    experiences: PositiveInt | Sequence[PositiveInt] | Literal["groups"] = 5,
    class_seed: NonNegativeInt | None = None,
    validation: Fraction = 0.0,
    samples: PositiveInt | None = None,
    test_samples: PositiveInt | None = None,
    normalise: bool = True,
    augmentation: StreamAugmentation = "none",
    online: bool = False,
) -> Stream:
    """Share out the classes of a data set over experiences.

    Args:
        scenario: ``class`` hides the task label at test time, ``task`` gives it; ``domain`` only
            distinguishes the first class of an experience from the second, and so on.
        classes: the classes to take, by number, or how many of the first; None takes all.
        experiences: their number (of sizes that differ by at most one), the number of classes of
            each, or ``groups`` for those of the data set (superclasses, alphabets).
        class_seed: seed of a random order of the classes; None keeps the numeric order. (The
            curriculum orders the experiences.)
        validation: share of each class's training samples that is held out.
        samples: training samples of each experience, the same in every run; None takes all.
        test_samples: test samples of each experience, for a quick look; they are part of the
            stream's name.
        normalise: by the mean and standard deviation of the training images; if not, inputs lie in
            [0, 1].
        online: train on each sample once only.

    Raises:
        BadInput: the sizes do not add up to the number of classes.
    """
    data = load_dataset(dataset) if isinstance(dataset, str) else dataset
    if classes is not None:
        data = _restricted(data, range(classes) if isinstance(classes, int) else classes)
    groups = _groups(experiences, data)
    if class_seed is not None:
        generator = torch.Generator().manual_seed(class_seed)
        shuffled = torch.randperm(len(data.class_names), generator=generator).tolist()
        groups = [[shuffled[c] for c in group] for group in groups]
    train, held_out = hold_out(data.train, validation)
    group_of = {c: name for name, group in data.groups.items() for c in group}
    complete = len(group_of) == len(data.class_names)
    stream = class_incremental(
        _name("split", data),
        groups,
        data.class_names,
        train,
        data.test,
        held_out,
        scenario="task" if scenario == "task" else "class",
        preprocess=Preprocess(*_scaling(data, normalise), augmentation),
        online=online,
        superclasses=[group_of[c] for c in sorted(group_of)] if complete else (),
    )
    parts = list(stream.experiences)
    if experiences == "groups" and class_seed is None:
        parts = [replace(e, name=name) for e, name in zip(parts, data.groups, strict=True)]
    if samples is not None:
        parts = [e.subset(_some(len(e.train), samples)) for e in parts]
    if test_samples is not None:
        parts = [replace(e, test=e.test.select(_some(len(e.test), test_samples))) for e in parts]
        stream = replace(stream, name=f"{stream.name} ({test_samples} test samples each)")
    stream = replace(stream, experiences=tuple(parts))
    return _by_position(stream) if scenario == "domain" else stream


def permuted(
    dataset: str,
    *,
    scenario: Literal["domain", "task"] = "domain",
    experiences: PositiveInt = 10,
    permutation_seed: NonNegativeInt = 0,
    heads: Heads = "shared",
    validation: Fraction = 0.0,
    normalise: bool = True,
    online: bool = False,
) -> Stream:
    """Make domains of a data set by permutations of the pixels; the first has none.

    Source: Goodfellow et al. 2013; Kirkpatrick et al. 2017.

    Args:
        scenario: ``task`` gives the task label at test time, ``domain`` hides it.
        heads: ``shared``: the classes are the same in every experience; ``task`` (in the task
            scenario): each experience has classes, and so outputs, of its own.
        validation: share of each class's training samples that is held out.
        normalise: by the mean and standard deviation of the training images; if not, inputs lie in
            [0, 1], as in many published results.
        online: train on each sample once only.
    """
    data = load_dataset(dataset)
    n_pixels = math.prod(data.train.source.shape[2:])
    domains: dict[str, Transform | None] = {"unpermuted": None}
    for i in range(1, experiences):
        domains[f"permutation {i}"] = PermutePixels(permutation_seed * 1000 + i, n_pixels)
    return _domains("permuted", data, domains, scenario, heads, validation, normalise, online)


def rotated(
    dataset: str,
    *,
    scenario: Literal["domain", "task"] = "domain",
    experiences: PositiveInt = 10,
    largest_angle: PositiveFloat = 180.0,
    heads: Heads = "shared",
    validation: Fraction = 0.0,
    normalise: bool = True,
    online: bool = False,
) -> Stream:
    """Make domains of a data set by rotations, evenly spaced from 0 to `largest_angle` degrees.

    Source: Lopez-Paz & Ranzato 2017, who draw the angles at random.

    The other arguments are those of :func:`permuted`.
    """
    data = load_dataset(dataset)
    step = largest_angle / max(1, experiences - 1)
    domains: dict[str, Transform | None] = {"rotation 0": None}
    for i in range(1, experiences):
        domains[f"rotation {i * step:g}"] = Rotate(i * step)
    return _domains("rotated", data, domains, scenario, heads, validation, normalise, online)


def blobs(
    *,
    scenario: Literal["class", "task"] = "class",
    experiences: PositiveInt = 5,
    classes_per_experience: PositiveInt = 2,
    dimensions: PositiveInt = 16,
    separation: PositiveFloat = 8.0,
    offset: NonNegativeFloat = 16.0,
    samples_per_class: PositiveInt = 100,
    data_seed: NonNegativeInt = 0,
    online: bool = False,
) -> Stream:
    """Draw Gaussian classes, for which the effect of a method can be computed.

    Class c is normal with unit variance around `separation` times a random unit vector (orthogonal
    ones while there are dimensions left) plus an `offset` along one more direction that all share.
    At the defaults two classes are 11 standard deviations apart, so that a method that does not
    forget has an accuracy of 1. Learning one class changes the logits of all inputs through the
    shared direction, so that a method that forgets is right on the last experience only.
    """
    n_classes = experiences * classes_per_experience
    generator = torch.Generator().manual_seed(data_seed)
    directions = torch.randn(n_classes, dimensions, generator=generator)
    if n_classes <= dimensions:
        directions = torch.linalg.qr(directions.T).Q.T
    means = separation * directions / directions.norm(dim=1, keepdim=True)
    means = torch.cat([torch.full((n_classes, 1), offset), means], dim=1)

    def draw(n: int) -> Samples:
        y = torch.arange(n_classes).repeat_interleave(n)
        return Samples.of(means[y] + torch.randn(len(y), 1 + dimensions, generator=generator), y)

    size = classes_per_experience
    return class_incremental(
        "blobs",
        [range(i * size, (i + 1) * size) for i in range(experiences)],
        [f"blob {c}" for c in range(n_classes)],
        draw(samples_per_class),
        draw(samples_per_class),
        scenario=scenario,
        online=online,
    )


def _restricted(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Return the data set with the given classes alone, numbered in their order."""
    n = len(data.class_names)
    if len(set(classes)) < len(classes) or not set(classes) <= set(range(n)):
        raise BadInput(f"stream.classes={list(classes)}: give different numbers from 0 to {n - 1}")
    number = torch.full((n,), -1)
    number[list(classes)] = torch.arange(len(classes))
    train, test = (s.select(number[s.y] >= 0).relabelled(number) for s in (data.train, data.test))
    taken = {name: [c for c in group if c in classes] for name, group in data.groups.items()}
    return replace(
        data,
        train=train,
        test=test,
        class_names=tuple(data.class_names[c] for c in classes),
        groups={name: number[group].tolist() for name, group in taken.items() if group},
        note=", ".join(filter(None, [data.note, f"{len(classes)} of {n} classes"])),
    )


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


def _scaling(
    data: Dataset, normalise: bool
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and the divisor of each channel; None for token ids."""
    if normalise or data.mean is None or data.std is None:
        return data.mean, data.std
    source = data.train.source
    largest = 255.0 if data.train.mapped else float(source.max())
    return tuple(0.0 for _ in data.mean), tuple(largest for _ in data.std)


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


def _groups(
    experiences: int | Sequence[int] | Literal["groups"], data: Dataset
) -> list[Sequence[int]]:
    """Return the classes of each experience, in numeric order."""
    n = len(data.class_names)
    if experiences == "groups":
        if not data.groups:
            raise BadInput(f"data set {data.name!r} has no groups: give a number of experiences")
        return list(data.groups.values())
    if isinstance(experiences, int):
        if experiences > n:
            raise BadInput(f"stream.experiences={experiences}: there are only {n} classes")
        small, larger = divmod(n, experiences)
        experiences = [small + (i < larger) for i in range(experiences)]
    sizes = [int(s) for s in experiences]
    if sum(sizes) != n:
        raise BadInput(
            f"stream.experiences={sizes} adds up to {sum(sizes)} classes, but {data.name} has {n}; "
            "no class may be left out"
        )
    ends = list(accumulate(sizes))
    return [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _domains(
    kind: str,
    data: Dataset,
    domains: Mapping[str, Transform | None],
    scenario: Literal["domain", "task"],
    heads: Heads,
    validation: float,
    normalise: bool,
    online: bool,
) -> Stream:
    """Make an experience of all classes from each transformation, by its name."""
    if heads == "task" and scenario != "task":
        raise BadInput(
            "stream.heads=task: a head per task is chosen by the task label; give --scenario task"
        )
    train, held_out = hold_out(data.train, validation)
    n, names = len(data.class_names), data.class_names
    if heads == "task":
        names = tuple(f"{name}: {c}" for name in domains for c in data.class_names)
    experiences = []
    for task, (name, transform) in enumerate(domains.items()):
        parts = [replace(s, transform=transform) for s in (train, held_out, data.test)]
        e = Experience(name, tuple(range(n)), task, *parts)
        first = n * task if heads == "task" else 0
        experiences.append(e.relabelled(range(first, first + n)))
    preprocess = Preprocess(*_scaling(data, normalise))
    return Stream(_name(kind, data), scenario, tuple(experiences), names, preprocess, online)


def _name(kind: str, data: Dataset) -> str:
    return f"{kind}-{data.name} ({data.note})" if data.note else f"{kind}-{data.name}"


split_digits = partial(split, "digits")
split_mnist = partial(split, "mnist")
split_fashion_mnist = partial(split, "fashion-mnist")
split_kmnist = partial(split, "kmnist")
split_cifar10 = partial(split, "cifar10", augmentation="crop-flip")
split_cifar100 = partial(split, "cifar100", experiences=10, augmentation="crop-flip")
split_omniglot = partial(split, "omniglot", experiences="groups")
split_tiny_imagenet = partial(split, "tiny-imagenet", experiences=10, augmentation="crop-flip")
permuted_digits = partial(permuted, "digits")
permuted_mnist = partial(permuted, "mnist")
permuted_fashion_mnist = partial(permuted, "fashion-mnist")
rotated_digits = partial(rotated, "digits")
rotated_mnist = partial(rotated, "mnist")
rotated_fashion_mnist = partial(rotated, "fashion-mnist")
