"""Streams of images and numbers; those of texts are in ``streams.text``.

A new stream is a function that returns a ``Stream``, and an entry point that names it. The
parameters of the function are those of the stream: ``--set stream.experiences=2``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.core.samples import Transform
from cl_platform.errors import BadInput
from streams.data.datasets import Dataset, load_dataset
from streams.sharing import Fraction, Named, chained, hold_out, scaling, stream_name
from streams.transforms import PermutePixels, Rotate

Heads = Literal["shared", "task"]


def _data(dataset: str | Dataset) -> Dataset:
    """Share out the classes of a data set over experiences.

    The other arguments are those of :func:`streams.sharing.share_out`.
    """
    return load_dataset(dataset) if isinstance(dataset, str) else dataset


split = chained(_data, without=("by", "boundaries"), experiences=5)


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
    held_out: Named = None,
) -> Stream:
    """Make domains of a data set by permutations of the pixels; the first has none.

    Source: Goodfellow et al. 2013; Kirkpatrick et al. 2017.

    Args:
        scenario: ``task`` gives the task label at test time, ``domain`` hides it.
        experiences: number of domains.
        permutation_seed: of the permutations.
        heads: ``shared``: the classes are the same in every experience; ``task`` (in the task
            scenario): each experience has classes, and so outputs, of its own.
        validation: share of each class's training samples that is held out.
        normalise: by the mean and standard deviation of the training images; if not, inputs lie in
            [0, 1], as in many published results.
        online: train on each sample once only.
        held_out: experiences that are scored in every row and never learned, by number from 0 or
            by name.
    """
    data = load_dataset(dataset)
    n_pixels = math.prod(data.train.source.shape[2:])
    domains: dict[str, Transform | None] = {"unpermuted": None}
    for i in range(1, experiences):
        domains[f"permutation {i}"] = PermutePixels(permutation_seed * 1000 + i, n_pixels)
    stream = _domains("permuted", data, domains, scenario, heads, validation, normalise, online)
    return stream.holding_out(held_out) if held_out else stream


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
    held_out: Named = None,
) -> Stream:
    """Make domains of a data set by rotations, evenly spaced from 0 to `largest_angle` degrees.

    Source: Lopez-Paz & Ranzato 2017, who draw the angles at random.

    Args:
        experiences: number of domains.
        largest_angle: of the last domain, in degrees.

    The other arguments are those of :func:`permuted`.
    """
    data = load_dataset(dataset)
    step = largest_angle / max(1, experiences - 1)
    domains: dict[str, Transform | None] = {"rotation 0": None}
    for i in range(1, experiences):
        domains[f"rotation {i * step:g}"] = Rotate(i * step)
    stream = _domains("rotated", data, domains, scenario, heads, validation, normalise, online)
    return stream.holding_out(held_out) if held_out else stream


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

    Args:
        scenario: in ``task`` the experience of a test sample is known, in ``class`` it is not.
        experiences: their number.
        classes_per_experience: how many classes each experience brings.
        dimensions: of the directions; inputs have one more.
        separation: distance of the class means from the point that they share.
        offset: distance of that point from 0, along the direction that all classes share.
        samples_per_class: of training, and as many for testing.
        data_seed: of directions and samples.
        online: train on each sample once only.
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
    train, validating = hold_out(data.train, validation)
    n, names = len(data.class_names), data.class_names
    if heads == "task":
        names = tuple(f"{name}: {c}" for name in domains for c in data.class_names)
    experiences = []
    for task, (name, transform) in enumerate(domains.items()):
        parts = [replace(s, transform=transform) for s in (train, validating, data.test)]
        e = Experience(name, tuple(range(n)), task, *parts)
        first = n * task if heads == "task" else 0
        experiences.append(e.relabelled(range(first, first + n)))
    preprocess = Preprocess(*scaling(data, normalise))
    return Stream(stream_name(kind, data), scenario, tuple(experiences), names, preprocess, online)


split_digits = partial(split, "digits")
split_mnist = partial(split, "mnist")
split_fashion_mnist = partial(split, "fashion-mnist")
split_kmnist = partial(split, "kmnist")
split_cifar10 = partial(split, "cifar10", augmentation="crop-flip")
split_cifar100 = partial(split, "cifar100", experiences=10, augmentation="crop-flip")
split_omniglot = partial(split, "omniglot", experiences="groups")
# Tao et al. 2020: 60 classes, then 8 sessions of 5 ways and 5 shots. The twin has a larger base,
# since a character has 15 drawings: 3,000 images in all.
SESSIONS = [5] * 8
fscil_cifar100 = partial(split_cifar100, experiences=[60, *SESSIONS], shots=[None, 5])
fscil_omniglot = partial(
    split, "omniglot", classes=240, experiences=[200, *SESSIONS], shots=[None, 5]
)
split_tiny_imagenet = partial(split, "tiny-imagenet", experiences=10, augmentation="crop-flip")
permuted_digits = partial(permuted, "digits")
permuted_mnist = partial(permuted, "mnist")
permuted_fashion_mnist = partial(permuted, "fashion-mnist")
rotated_digits = partial(rotated, "digits")
rotated_mnist = partial(rotated, "mnist")
rotated_fashion_mnist = partial(rotated, "fashion-mnist")
