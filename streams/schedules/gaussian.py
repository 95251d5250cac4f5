"""Streams without steps: many slices whose mix of classes slides."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from cl_platform import Stream
from cl_platform.errors import BadInput
from streams.schedules.segments import columns_of, pooled, refuse_tasks, scheduled, segment

Slices = Annotated[int, Field(ge=1, le=10_000)]


def gaussian_schedule(
    *,
    inner: Stream,
    slices: Slices = 100,
    width: NonNegativeFloat = 0.05,
    seed: NonNegativeInt = 0,
) -> Stream:
    """Let classes come and go gradually, in many slices of equal size.

    A class has its time, in the order of the stream; the times of its samples are normal around it,
    and the samples in the order of their times are cut into slices. So each sample is learned once,
    and how far a class reaches is one number. Where experiences have classes in common (domains),
    experiences have times in place of classes. It is scored on the experiences of the inner stream;
    a slice belongs to the one that would be learned then without any width.

    Source: the Gaussian schedule of Shanahan et al. 2021 (Encoders and ensembles for task-free
    continual learning), also in Wang et al. 2022 (DualPrompt's task-free variant L2P).

    Args:
        inner: the stream, by name or as a section.
        slices: number of training steps.
        width: the standard deviation of the times, as a share of the whole stream: 0 is one class
            after the other, and 1 almost no order.
        seed: of the times.

    Raises:
        BadInput: the inner stream is task-incremental, or there are too few or too many slices.
    """
    columns = {e.task: e for e in columns_of(inner)}
    refuse_tasks(inner, "gaussian-schedule")
    pool, of = pooled(inner)
    if slices > len(pool):
        raise BadInput(
            f"stream.slices={slices}: {inner.name!r} has {len(pool)} training samples; give fewer"
        )
    generator = torch.Generator().manual_seed(seed)
    times = _centres(_kinds(inner, pool.y, of)) + width * torch.randn(
        len(pool), generator=generator
    )
    parts = times.argsort(stable=True).tensor_split(slices)
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    present = of[[int(end) - (len(part) + 1) // 2 for part, end in zip(parts, ends, strict=True)]]
    if missing := {*range(len(inner))} - {*present.tolist()}:
        raise BadInput(
            f"stream.slices={slices}: none of them is in the time of experience "
            f"{inner[min(missing)].name!r:.60}; give more slices"
        )
    segments = [
        segment(
            f"slice {i + 1}",
            columns[inner[int(present[i])].task],
            pool.select(part.sort().values),
        )
        for i, part in enumerate(parts)
    ]
    return scheduled(inner, f"{slices} slices of width {width:g}", segments)


def _kinds(inner: Stream, y: Tensor, of: Tensor) -> Tensor:
    """Return what each sample has its time with: its class, by arrival, or its experience."""
    classes = [c for e in inner.experiences for c in e.classes]
    if len({*classes}) < len(classes):
        return of
    number = torch.zeros(inner.n_classes, dtype=torch.int64)
    number[classes] = torch.arange(len(classes))
    return number[y]


def _centres(kinds: Tensor) -> Tensor:
    """Return the time of each sample's kind: the middle of its samples if one follows the other,
    from 0 to 1."""
    sizes = kinds.bincount().double()
    return ((sizes.cumsum(0) - sizes / 2) / len(kinds))[kinds].float()
