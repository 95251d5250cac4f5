"""Which classes of a data set are taken, and which experience has which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from cl_platform import Samples
from cl_platform.errors import BadInput
from streams.data.datasets import Dataset
from streams.data.natural import is_number

Class = int | float | str
"""A class by its name or number."""


def chosen(data: Dataset, classes: int | Sequence[Class]) -> list[int]:
    """Return the numbers of the classes that are taken: the first ones, or those given."""
    if not isinstance(classes, int):
        return numbers_of(data, classes, "classes")
    n = len(data.class_names)
    if classes > n:
        raise BadInput(f"stream.classes={classes}: {data.name} has only {n} classes")
    return list(range(classes))


def numbers_of(data: Dataset, classes: Sequence[Class], where: str) -> list[int]:
    """Return the numbers of different classes that are given by name or number."""
    names = data.class_names
    number: Mapping[Any, int] = {name: c for c, name in enumerate(names)}
    by_place = not any(is_number(name) for name in names)
    if by_place:
        number = {**number, **{str(c): c for c in range(len(names))}}
    unknown = [c for c in classes if str(c) not in number]
    if unknown or len({number[str(c)] for c in classes}) < len(classes):
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        what = f"unknown {unknown[:5]}" if unknown else "a class is given twice"
        raise BadInput(
            f"stream.{where}={f'{list(classes)}':.80}: {what}; give different classes of "
            f"{some:.200}" + f" or numbers from 0 to {len(names) - 1}" * by_place
        )
    return [number[str(c)] for c in classes]


def restricted(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Return the data set with the given classes alone, numbered in their order."""
    n = len(data.class_names)
    if list(classes) == list(range(n)):
        return data
    number = torch.full((n,), -1)
    number[list(classes)] = torch.arange(len(classes))

    def of(samples: Samples) -> Samples:
        return samples.select(number[samples.y] >= 0).relabelled(number)

    taken = {name: [c for c in group if c in classes] for name, group in data.groups.items()}
    return replace(
        data,
        train=of(data.train),
        test=of(data.test),
        validation=data.validation and of(data.validation),
        class_names=tuple(data.class_names[c] for c in classes),
        groups={name: number[group].tolist() for name, group in taken.items() if group},
        note=", ".join(filter(None, [data.note, f"{len(classes)} of {n} classes"])),
    )


def is_nested(experiences: Any) -> bool:
    """Return whether these are lists of classes or values."""
    return isinstance(experiences, Sequence) and not all(
        isinstance(e, int | str) for e in experiences
    )


def listed(
    data: Dataset, lists: Sequence[Sequence[Class]]
) -> tuple[Dataset, Sequence[Sequence[int]]]:
    """Return the data set with the listed classes alone, and their numbers in it."""
    numbers = numbers_of(data, [c for group in lists for c in group], "experiences")
    place = {c: i for i, c in enumerate(sorted(numbers))}
    ends = list(accumulate(len(group) for group in lists))
    groups = [
        [place[c] for c in numbers[end - len(group) : end]]
        for group, end in zip(lists, ends, strict=True)
    ]
    return restricted(data, sorted(numbers)), groups


def class_groups(data: Dataset, experiences: Any, class_seed: int | None) -> list[Sequence[int]]:
    """Return the classes of each experience, in numeric order or in that of the seed."""
    n = len(data.class_names)
    if experiences == "groups" and not data.groups:
        raise BadInput(f"data set {data.name!r} has no groups: give a number of experiences")
    if experiences == "groups":
        groups: list[Sequence[int]] = list(data.groups.values())
    elif is_nested(experiences):
        groups = list(experiences)
    else:
        groups = _of_sizes(experiences or min(5, n), data)
    if class_seed is None:
        return groups
    generator = torch.Generator().manual_seed(class_seed)
    shuffled = torch.randperm(n, generator=generator).tolist()
    return [[shuffled[c] for c in group] for group in groups]


def _of_sizes(experiences: int | Sequence[int], data: Dataset) -> list[Sequence[int]]:
    n = len(data.class_names)
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
