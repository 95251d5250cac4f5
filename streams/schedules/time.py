"""Streams of many steps that are scored on few."""

from __future__ import annotations

from dataclasses import replace

from pydantic import PositiveInt

from cl_platform import Experience, Samples, Stream
from cl_platform.errors import BadInput
from streams.schedules.segments import columns_of, scheduled


def time(*, inner: Stream, columns: PositiveInt = 5) -> Stream:
    """Learn a stream of many experiences, and score it on spans of them.

    It is for data with a time: ``stream.inner=table``, ``stream.inner.by=date`` and
    ``stream.inner.experiences=100`` learn a hundred intervals in their order, each with the same
    number of rows, and ``stream.columns=5`` scores five spans of twenty.

    Args:
        inner: the stream, by name or as a section.
        columns: number of spans, of about equally many experiences each.

    Raises:
        BadInput: there are fewer experiences than columns.
    """
    before, n = columns_of(inner), len(inner)
    if columns > n:
        raise BadInput(
            f"stream.columns={columns}: {inner.name!r} has {n} experiences; give as many or fewer"
        )
    span = [k * columns // n for k in range(n)]
    parts = [
        [e for e, i in zip(inner.experiences, span, strict=True) if i == k] for k in range(columns)
    ]
    spans = [_together(group, task) for task, group in enumerate(parts)]
    held_out = [e for e in before if e not in inner.experiences]
    spans += [replace(e, task=columns + i) for i, e in enumerate(held_out)]
    steps = [
        replace(e, task=i, test=e.test.emptied())
        for e, i in zip(inner.experiences, span, strict=True)
    ]
    return scheduled(inner, f"scored on {columns} spans", steps, spans)


def _together(group: list[Experience], task: int) -> Experience:
    """Return the data of neighbouring experiences as one."""
    names = dict.fromkeys((group[0].name, group[-1].name))
    classes = tuple(c for e in group for c in e.classes)
    parts = {
        split: Samples.concat([getattr(e, split) for e in group])
        for split in ("train", "validation", "test")
    }
    return Experience(" ... ".join(names), classes, task, **parts)
