"""Streams in which experiences or classes come again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from cl_platform import Experience, Stream
from cl_platform.errors import BadInput
from streams.schedules.segments import columns_of, pooled, refuse_tasks, scheduled, segment

Rate = Annotated[float, Field(ge=0, lt=1)]


def repeating(
    *,
    inner: Stream,
    order: Sequence[int] | None = None,
    recurrence: Rate = 0.5,
    level: Literal["experiences", "classes"] = "experiences",
    samples: Literal["same", "part"] = "same",
    seed: NonNegativeInt = 0,
) -> Stream:
    """Let the experiences of a stream come again, or its classes; it is scored on the inner ones.

    Source of the classes that return: the sampling-based generator of Hemati et al. 2023
    (Class-Incremental Learning with Repetition), with one probability for all classes and the
    inner stream's order of first appearances.

    Args:
        inner: the stream, by name or as a section.
        order: which experience each step learns, from 0: ``[0,1,2,1,3]``. Those that do not occur
            are held out: scored and never learned. None draws it by `recurrence`.
        recurrence: for ``experiences`` the share of the steps that are returns, at random places
            and of any experience but the last one; new ones come in their order. For ``classes``
            the probability that a class which has been is in a later experience again.
        level: whether whole experiences return, or single classes.
        samples: what a return holds: the ``same`` samples as before, or a ``part``: then the
            samples of an experience or class are dealt out over its visits, and each is learned in
            one of them.
        seed: of the draws.

    Raises:
        BadInput: `order` names no experiences, or what returns cannot do so in such a stream.
    """
    columns_of(inner)
    if inner.online and samples == "same":
        raise BadInput(
            f"{inner.name!r:.60} is online, so that each sample is learned once: give "
            "stream.samples=part, or leave stream.inner.online out"
        )
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    if level == "classes":
        if order is not None:
            raise BadInput("stream.order is of experiences: leave it or stream.level=classes out")
        segments = _of_classes(inner, recurrence, samples, rng, generator)
        return scheduled(inner, f"classes return ({recurrence:g})", segments)
    if order is not None:
        visits, note = _checked(order, len(inner)), "in the order " + _named(order)
    else:
        visits, note = _drawn(len(inner), recurrence, rng), f"returning ({recurrence:g})"
    return scheduled(inner, note, _visited(inner, visits, samples, generator))


def _checked(order: Sequence[int], n: int) -> list[int]:
    """Return an order of which all items are experiences."""
    if not order or not all(0 <= k < n for k in order):
        raise BadInput(
            f"stream.order={_named(order)}: give the numbers of experiences, from 0 to {n - 1}, "
            "such as [0,1,0]"
        )
    return list(order)


def _named(order: Sequence[int]) -> str:
    text = ",".join(map(str, order))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _drawn(n: int, recurrence: float, rng: np.random.Generator) -> list[int]:
    """Return an order of n experiences, of whose steps such a share are returns."""
    steps = round(n / (1 - recurrence))
    if n == 1 and steps > 1:
        raise BadInput("stream.recurrence: a single experience has none to return after; give 0")
    returns = {*(2 + rng.choice(steps - 2, steps - n, replace=False)).tolist()} if steps > n else ()
    order: list[int] = []
    for step in range(steps):
        known = max(order, default=-1) + 1
        if step not in returns:
            order.append(known)
            continue
        others = [k for k in range(known) if k != order[-1]]
        order.append(int(rng.choice(others)))
    return order


def _visited(
    inner: Stream, visits: Sequence[int], samples: str, generator: torch.Generator
) -> list[Experience]:
    """Return the experience of each visit."""
    total = Counter(visits)
    if samples == "same":
        return [inner[k] for k in visits]
    parts = {k: _dealt(inner[k].train.y, n, generator, inner[k].name) for k, n in total.items()}
    done: Counter[int] = Counter()
    segments = []
    for k in visits:
        rows, done[k] = parts[k][done[k]], done[k] + 1
        name = f"{inner[k].name} ({done[k]} of {total[k]})"
        part = replace(inner[k].subset(rows), name=name)
        segments.append(inner[k] if total[k] == 1 else part)
    return segments


def _dealt(y: Tensor, n: int, generator: torch.Generator, name: str) -> list[Tensor]:
    """Return the rows (int64, sorted) of each of n parts of samples, even within each class."""
    if len(y) < n:
        raise BadInput(
            f"{name!r:.60} has {len(y)} training samples for {n} visits: give stream.samples=same, "
            "or fewer visits"
        )
    shuffled = torch.randperm(len(y), generator=generator)
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    return [by_class[k::n].sort().values for k in range(n)]


def _of_classes(
    inner: Stream,
    recurrence: float,
    samples: str,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> list[Experience]:
    """Return experiences that hold their own classes, and some of those before."""
    refuse_tasks(inner, "stream.level=classes")
    if len({c for e in inner.experiences for c in e.classes}) < sum(
        len(e.classes) for e in inner.experiences
    ):
        raise BadInput(
            f"stream.level=classes: {inner.name!r} has the same classes in several experiences; "
            "give stream.level=experiences"
        )
    held: dict[int, list[int]] = {}  # the steps that a class is in
    for k, e in enumerate(inner.experiences):
        for c in [c for c in held if rng.random() < recurrence]:
            held[c].append(k)
        held |= {c: [k] for c in e.classes}
    pool, _ = pooled(inner)
    rows: list[list[Tensor]] = [[] for _ in inner.experiences]
    for c, steps in held.items():
        own = torch.nonzero(pool.y == c).flatten()
        name = inner.class_names[c]
        parts = _dealt(pool.y[own], len(steps), generator, name) if samples == "part" else None
        for i, k in enumerate(steps):
            rows[k].append(own if parts is None else own[parts[i]])
    return [
        segment(e.name, e, pool.select(torch.cat(found).sort().values))
        for e, found in zip(inner.experiences, rows, strict=True)
    ]
