"""Whether the inputs of a stream are finite and alike: of one shape, one type and one unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from cl_platform.core.preprocess import holds_tokens
from cl_platform.core.samples import Samples

SAMPLED = 1000  # rows of a data set whose size of numbers is measured
FEW = 10  # samples say too little about their unit
UNITS = 10  # inputs whose largest and mean numbers both differ by this factor have other units
ROWS = 4096  # looked at together


class Part(NamedTuple):
    """One split of an experience, by names that people read."""

    experience: str
    split: str
    samples: Samples

    def __str__(self) -> str:
        return f"the {self.split} inputs of experience {self.experience!r}"


class _Size(NamedTuple):
    """The largest and the mean absolute number of a source, and whether all are finite."""

    largest: float
    mean: float
    finite: bool


_SIZES = WeakTensorKeyDictionary()  # of sources: streams are made anew from the same ones


def input_faults(parts: Sequence[Part]) -> Iterator[str]:
    """Yield a line for each way in which inputs are unusable, or unlike those of another part.

    Args:
        parts: of all experiences in turn; empty ones are left out.
    """
    parts = [part for part in parts if len(part.samples)]
    if not parts:
        return
    first, dtype = parts[0], parts[0].samples.source.dtype
    if advice := _advice(first.samples.source):
        yield f"{first} are {_name(dtype)}: {advice}"
        return
    for part in parts[1:]:
        source = part.samples.source
        if source.shape[1:] != first.samples.source.shape[1:]:
            shapes = [tuple(p.samples.source.shape[1:]) for p in (part, first)]
            yield f"{part} have shape {shapes[0]}, {first} {shapes[1]}: give all the same shape"
            return
        if source.dtype != dtype:
            types = f"{part} are {_name(source.dtype)}, {first} {_name(dtype)}"
            yield f"{types}: give all in the same type and the same units"
            return
    source = first.samples.source
    if holds_tokens(source) or not math.prod(source.shape[1:]):
        return
    broken = list(_broken(parts))
    yield from broken
    if broken:
        return
    if source.dim() > 2:  # images
        yield from _other_units(parts)
    else:  # numbers of an experience may be larger than those of another one
        for _, group in groupby(parts, key=lambda part: part.experience):
            yield from _other_units(list(group))


def _broken(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        rows = torch.zeros(0) if _size(part.samples).finite else _broken_rows(part.samples)
        if len(rows):
            yield (
                f"{len(rows)} of {part} hold nan or infinity, the first at row {int(rows[0])}: "
                "replace these values, or leave the samples out"
            )


def _other_units(parts: Sequence[Part]) -> Iterator[str]:
    """Yield the two parts that differ most in the size of their numbers, if they do much."""
    sizes = [_size(part.samples) for part in parts]
    few = any(len(part.samples.source) < FEW for part in parts)
    if few or not all(math.isfinite(size.mean) for size in sizes):
        return
    low, high = (f(range(len(parts)), key=lambda i: sizes[i].mean) for f in (min, max))
    small, large = sizes[low], sizes[high]
    if small.mean and large.largest > UNITS * small.largest and large.mean > UNITS * small.mean:
        yield (
            f"{parts[high]} reach {large.largest:g}, {parts[low]} {small.largest:g} "
            f"(means {large.mean:.3g} and {small.mean:.3g}): give all in the same units"
        )


def _size(samples: Samples) -> _Size:
    source = samples.source
    if source not in _SIZES:
        if not len(source):  # read row by row, where the stream was looked at when it was whole
            return _Size(0.0, 0.0, True)
        some = source[:: max(1, len(source) // SAMPLED)].double().abs()
        finite = True
        if source.is_floating_point() and not samples.mapped:
            finite = all(bool(end.isfinite()) for end in torch.aminmax(source))
        _SIZES[source] = _Size(some.max().item(), some.mean().item(), finite)
    size: _Size = _SIZES[source]
    return size


def _broken_rows(samples: Samples) -> Tensor:
    """Return the rows that hold numbers that are not finite."""
    rows = torch.arange(len(samples), device=samples.index.device)
    whole = [samples.gather(part).isfinite().flatten(1).all(1) for part in rows.split(ROWS)]
    return torch.nonzero(~torch.cat(whole)).flatten()


def _advice(source: Tensor) -> str:
    """Return how to store inputs whose type no model reads; nothing if the type is fine."""
    if source.dtype == torch.uint8 or source.is_floating_point():
        return ""
    if source.is_complex():
        return "give real numbers, such as two channels"
    if source.dtype == torch.bool:
        return "store them as uint8"
    if source.dim() > 2:
        return "store images as uint8 (0..255), or as float32 in any unit"
    if source.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        return "store token ids as int32, and other numbers as float32"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
