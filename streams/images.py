"""Streams of images and numbers; those of texts are in ``streams.text``. A new one is a function
that returns a Stream, and an entry point that names it.

Parameters of these functions are the parameters of the stream: ``--set stream.experiences=2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.core.preprocess import Augmentation
from cl_platform.core.samples import Transform
from cl_platform.core.stream import Scenario
from cl_platform.errors import BadInput
from streams.data.datasets import Dataset, load_dataset
from streams.transforms import PermutePixels, Rotate

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
    augmentation: Augmentation = "none",
    online: bool = False,
) -> Stream:
    """The classes of a data set dealt out over experiences.

    Args:
        scenario: whether the task label is hidden at test time (``class``) or known (``task``); or
            ``domain``: to tell only the first class of an experience from the second, and so on.
        classes: which of the data set's there are, by number, or how many of the first; None takes
            all.
        experiences: their number (of sizes that differ by at most one), the number of classes of
            each, or ``groups`` for the data set's own (superclasses, alphabets).
        class_seed: deal the classes out in a random order with this seed; None keeps the numeric
            order. The order in which the experiences are learned is the curriculum's affair.
        validation: share of each class's training samples that is held out.
        samples: training samples kept of each experience, the same in every run; None keeps all.
        test_samples: test samples kept of each experience, for a quick look; the stream's name says
            so.
        normalise: by the mean and standard deviation of the training images; if not, inputs lie in
            [0, 1].
        online: whether each sample may be seen once only.

    Raises:
        BadInput: the sizes do not add up to the number of classes.
    """
    data = load_dataset(dataset) if isinstance(dataset, str) else dataset
    if classes is not None:
        data = _restricted(data, range(classes) if isinstance(classes, int) else classes)
    groups = _groups(experiences, data)
    if class_seed is not None:
        generator = torch.Generator().manual_seed(class_seed)
        dealt = torch.randperm(len(data.class_names), generator=generator).tolist()
        groups = [[dealt[c] for c in group] for group in groups]
    train, held_out = hold_out(data.train, validation)
    stream = class_incremental(
        _name(f"split-{data.name}", data),
        groups,
        data.class_names,
        train,
        data.test,
        held_out,
        scenario="task" if scenario == "task" else "class",
        preprocess=Preprocess(*_scaling(data, normalise), augmentation),
        online=online,
        superclasses=_superclasses(data),
    )
    if experiences == "groups" and class_seed is None:
        named = zip(stream.experiences, data.groups, strict=True)
        stream = replace(stream, experiences=tuple(replace(e, name=name) for e, name in named))
    if samples is not None:
        kept = tuple(e.subset(_some(len(e.train), samples)) for e in stream.experiences)
        stream = replace(stream, experiences=kept)
    if test_samples is not None:
        stream = _tested_on(stream, test_samples)
    return _by_place(stream) if scenario == "domain" else stream


def permuted(
    dataset: str,
    *,
    scenario: Literal["domain", "task"] = "domain",
    experiences: PositiveInt = 10,
    permutation_seed: NonNegativeInt = 0,
    validation: Fraction = 0.0,
    online: bool = False,
) -> Stream:
    """All classes in every experience, with pixels permuted differently; the first ones are not.

    Source: Goodfellow et al. 2013; Kirkpatrick et al. 2017.
    """
    data = load_dataset(dataset)
    n_pixels = math.prod(data.train.source.shape[2:])
    transforms: list[tuple[str, Transform | None]] = [("unpermuted", None)]
    for i in range(1, experiences):
        seed = permutation_seed * 1000 + i
        transforms.append((f"permutation {i}", PermutePixels(seed, n_pixels)))
    return _domains(f"permuted-{dataset}", data, transforms, scenario, validation, online)


def rotated(
    dataset: str,
    *,
    scenario: Literal["domain", "task"] = "domain",
    experiences: PositiveInt = 10,
    largest_angle: PositiveFloat = 180.0,
    validation: Fraction = 0.0,
    online: bool = False,
) -> Stream:
    """All classes in every experience, turned by angles evenly spaced from 0 to `largest_angle`.

    Source: Lopez-Paz & Ranzato 2017, who draw the angles at random.
    """
    data = load_dataset(dataset)
    step = largest_angle / max(1, experiences - 1)
    transforms: list[tuple[str, Transform | None]] = [("rotation 0", None)]
    transforms += [(f"rotation {i * step:g}", Rotate(i * step)) for i in range(1, experiences)]
    return _domains(f"rotated-{dataset}", data, transforms, scenario, validation, online)


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
    """Gaussian classes with a known answer: what a method does to them can be computed.

    Class c is normal with unit variance around `separation` times a random unit vector (orthogonal
    ones while there are dimensions left) plus an `offset` along one more direction that all share.
    At the defaults two classes are 11 standard deviations apart, so whoever remembers scores 1; and
    what is learned about one class changes the logits of all inputs through the shared direction,
    so whoever does not remember scores the last experience only.
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
    """The data set with these classes alone, numbered as they stand here."""
    n = len(data.class_names)
    if len(set(classes)) < len(classes) or not set(classes) <= set(range(n)):
        raise BadInput(f"stream.classes={list(classes)}: give different numbers from 0 to {n - 1}")
    number = torch.full((n,), -1)
    number[list(classes)] = torch.arange(len(classes))

    def kept(samples: Samples) -> Samples:
        return samples.select(number[samples.y] >= 0).relabelled(number)

    groups = {name: [int(number[c]) for c in group] for name, group in data.groups.items()}
    groups = {name: [c for c in group if c >= 0] for name, group in groups.items()}
    return replace(
        data,
        train=kept(data.train),
        test=kept(data.test),
        class_names=tuple(data.class_names[c] for c in classes),
        groups={name: group for name, group in groups.items() if group},
        note=", ".join(filter(None, [data.note, f"{len(classes)} of {n} classes"])),
    )


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Training and validation samples, chosen within each class and the same in every run."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(len(samples), dtype=torch.bool)
    for c in samples.y.unique():
        rows = torch.nonzero(samples.y == c).flatten()
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        held = max(1, int(share * len(rows))) if share and len(rows) > 1 else 0
        chosen[shuffled[:held]] = True
    return samples.select(~chosen), samples.select(chosen)


def _scaling(
    data: Dataset, normalise: bool
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """What is subtracted from each channel, and what it is then divided by; None for token ids."""
    if normalise or data.mean is None or data.std is None:
        return data.mean, data.std
    source = data.train.source
    largest = 255.0 if data.train.mapped else float(source.max())
    return tuple(0.0 for _ in data.mean), tuple(largest for _ in data.std)


def _some(n: int, wanted: int) -> Tensor:
    """`wanted` of `n` rows at random, in order; all of them if there are not as many."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(n, generator=generator)[:wanted].sort().values


def _tested_on(stream: Stream, n: int) -> Stream:
    """The stream with at most n test samples of each experience."""
    kept = tuple(replace(e, test=e.test.select(_some(len(e.test), n))) for e in stream.experiences)
    return replace(stream, name=f"{stream.name} ({n} test samples each)", experiences=kept)


def _by_place(stream: Stream) -> Stream:
    """The same experiences, with each class known only by its place within its experience.

    Source: the domain-incremental Split MNIST of van de Ven & Tolias 2019 (first or second digit).

    Raises:
        BadInput: experiences have different numbers of classes.
    """
    sizes = {len(e.classes) for e in stream.experiences}
    if len(sizes) > 1:
        raise BadInput(
            f"a domain stream has the same classes in every experience; these have "
            f"{sorted(sizes)}: give a number of experiences that divides the classes"
        )
    places = tuple(f"class {i}" for i in range(sizes.pop()))
    experiences = []
    for e in stream.experiences:
        place = torch.zeros(stream.n_classes, dtype=torch.int64)
        place[list(e.classes)] = torch.arange(len(places))
        parts = {
            split: replace(getattr(e, split), y=place[getattr(e, split).y])
            for split in ("train", "validation", "test")
        }
        experiences.append(replace(e, classes=tuple(range(len(places))), **parts))
    return replace(
        stream,
        scenario="domain",
        experiences=tuple(experiences),
        class_names=places,
        superclasses=(),
    )


def _groups(
    experiences: int | Sequence[int] | Literal["groups"], data: Dataset
) -> list[Sequence[int]]:
    n = len(data.class_names)
    if experiences == "groups":
        if not data.groups:
            raise BadInput(f"data set {data.name!r} has no groups; give a number of experiences")
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
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _domains(
    name: str,
    data: Dataset,
    transforms: list[tuple[str, Transform | None]],
    scenario: Literal["domain", "task"],
    validation: float,
    online: bool,
) -> Stream:
    train, held_out = hold_out(data.train, validation)
    classes = tuple(range(len(data.class_names)))
    experiences = []
    for task, (title, transform) in enumerate(transforms):
        parts = [replace(s, transform=transform) for s in (train, held_out, data.test)]
        experiences.append(Experience(title, classes, task, *parts))
    return Stream(
        _name(name, data),
        scenario,
        tuple(experiences),
        data.class_names,
        Preprocess(data.mean, data.std),
        online,
    )


def _superclasses(data: Dataset) -> tuple[str, ...]:
    """The group of each class; none where a class has none."""
    group_of = {c: name for name, classes in data.groups.items() for c in classes}
    n = len(data.class_names)
    return tuple(group_of[c] for c in range(n)) if len(group_of) == n else ()


def _name(name: str, data: Dataset) -> str:
    return f"{name} ({data.note})" if data.note else name


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
