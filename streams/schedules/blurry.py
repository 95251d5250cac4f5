"""Boundaries that are blurred: experiences that hold samples of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt

from cl_platform import Stream
from streams.schedules.segments import columns_of, pooled, refuse_tasks, scheduled, segment

Share = Annotated[float, Field(ge=0, le=1)]


def blurry(*, inner: Stream, blur: Share = 0.3, seed: NonNegativeInt = 0) -> Stream:
    """Blur the boundaries of a stream: some samples of each experience are learned in others.

    Each experience gives a share of its training samples away; all of these are put together,
    shuffled, and dealt out again. So each sample is learned in one experience, all sizes stay, and
    a step with n of N samples has a share ``blur * (1 - n / N)`` of other experiences' samples, on
    average. It is scored on the experiences of the inner stream, and each step belongs to the one
    whose samples it had.

    Source: blurry task boundaries as in Bang et al. 2021 (Rainbow Memory), who let the share of
    other experiences' samples be 10 or 30 %.

    Args:
        inner: the stream, by name or as a section.
        blur: the share that is given away: 0 is the inner stream, 1 has no order any more.
        seed: of the samples that change places; with more blur, more of the same ones do.

    Raises:
        BadInput: the inner stream is task-incremental, and `blur` is not 0.
    """
    columns = columns_of(inner)
    note = f"blur {blur:g}"
    if blur == 0:
        return replace(inner, name=f"{inner.name}, {note}")
    refuse_tasks(inner, f"stream.blur={blur:g}")
    pool, of = pooled(inner)
    generator = torch.Generator().manual_seed(seed)
    kept, given = [], []
    for k in range(len(inner)):
        rows = torch.nonzero(of == k).flatten()
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        n = round(blur * len(rows))
        given.append(shuffled[:n])
        kept.append(shuffled[n:])
    everything = torch.cat(given)
    everything = everything[torch.randperm(len(everything), generator=generator)]
    dealt = everything.split([len(rows) for rows in given])
    by_task = {e.task: e for e in columns}
    segments = [
        segment(e.name, by_task[e.task], pool.select(torch.cat([own, others]).sort().values))
        for e, own, others in zip(inner.experiences, kept, dealt, strict=True)
    ]
    return scheduled(inner, note, segments)
