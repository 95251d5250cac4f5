"""Segments: what is trained in a step, where that is another thing than what is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cl_platform import Experience, Samples, Stream
from cl_platform.errors import BadInput


def columns_of(inner: Stream) -> tuple[Experience, ...]:
    """Return what a stream is scored on, each of which it learns once or never.

    Raises:
        BadInput: it is made of another stream already.
    """
    if not isinstance(inner, Stream):
        raise BadInput(
            f"inner={inner!r:.60}: give a stream object, or the schedule by name as well: "
            '{"name": ..., "inner": ...}'
        )
    columns = inner.columns or inner.experiences
    once = len({*inner.experiences}) == len(inner.experiences)
    if not once or not {*inner.experiences} <= {*columns}:
        raise BadInput(
            f"stream.inner: {inner.name!r} trains on other experiences than it is scored on, so "
            "they cannot be put together anew; give the stream inside it"
        )
    return columns


def refuse_tasks(inner: Stream, what: str) -> None:
    """Raise BadInput if samples of several tasks in a segment would have one task label."""
    if inner.scenario == "task":
        raise BadInput(
            f"{what} mixes the samples of several tasks, and in the task scenario a training step "
            "has one task label: give stream.inner.scenario=class, or domain"
        )


def pooled(inner: Stream) -> tuple[Samples, Tensor]:
    """Return all training samples, experience by experience, and which each is of, (n,) int64.

    They are copied where experiences have data or transformations of their own.
    """
    parts = [e.train for e in inner.experiences]
    sizes = torch.tensor([len(part) for part in parts])
    return Samples.concat(parts), torch.arange(len(parts)).repeat_interleave(sizes)


def segment(name: str, column: Experience, train: Samples) -> Experience:
    """Return an experience of these samples, which belongs to a column.

    Its classes are those that it trains, and its validation data those of the column among them.
    """
    classes = sorted(train.classes)
    known = torch.isin(column.validation.y, torch.tensor(classes))
    validation = column.validation.select(known)
    return Experience(name, tuple(classes), column.task, train, validation, column.test.emptied())


def scheduled(
    inner: Stream,
    note: str,
    segments: Sequence[Experience],
    columns: Sequence[Experience] | None = None,
) -> Stream:
    """Return the stream that trains on segments and is scored as the inner one, or on columns.

    Columns that no segment belongs to are held out, and numbered behind the others.
    """
    columns = columns_of(inner) if columns is None else columns
    learned = {e.task for e in segments}
    ordered = sorted((e.task for e in columns), key=lambda task: (task not in learned, task))
    number = {task: i for i, task in enumerate(ordered)}
    parts = dict.fromkeys((*segments, *columns))  # what comes again stays one object
    numbered = {
        e: e if number[e.task] == e.task else replace(e, task=number[e.task]) for e in parts
    }
    return replace(
        inner,
        name=f"{inner.name}, {note}",
        experiences=tuple(numbered[e] for e in segments),
        columns=tuple(numbered[e] for e in columns),
    )
