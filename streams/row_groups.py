"""Which experience has which rows, by the values of a column."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_platform import Samples
from cl_platform.errors import BadInput
from streams.class_groups import is_nested
from streams.data.datasets import Dataset
from streams.data.natural import is_number, natural

SOURCE = "source"
"""The column that names the source of each row where there are several."""


def group_rows(
    data: Dataset,
    parts: Mapping[str, Samples],
    by: str,
    experiences: Any,
    boundaries: Sequence[float | str] | None,
) -> tuple[dict[str, dict[str, Samples]], str]:
    """Return the parts of each experience by its name, and a note of what is left out.

    A part without the column gives each experience the rows of its classes.

    Args:
        parts: ``train``, ``validation`` and ``test``.
        by, experiences, boundaries: as for :func:`streams.sharing.share_out`.

    Raises:
        BadInput: there is no such column, or its values do not give these experiences.
    """
    columns = {part: data.column(by, samples) for part, samples in parts.items()}
    trained = columns["train"]
    if trained is None:
        there = ", ".join(data.columns.get(data.train.fingerprint, {})) or "none"
        raise BadInput(f"stream.by={by}: {data.name} has no such column; its columns: {there:.200}")
    known = {value for c in columns.values() if c is not None for value in _texts(c)}
    names, number = _named(by, experiences, boundaries, _texts(trained), known)
    numbers = {part: _numbers(c, number) for part, c in columns.items() if c is not None}
    note = ""
    if is_nested(experiences):
        if len(number) < len(known):
            note = f"{len(number)} of {len(known)} values of {by}"
    elif left := sorted(known - number.keys(), key=natural):
        raise BadInput(
            f"stream.by={by}: no training rows have {left[0]!r:.60}, but others have; leave them "
            "out, or give the values of each experience, stream.experiences=[[...],...]"
        )
    rows: dict[str, dict[str, Samples]] = {}
    for i, name in enumerate(names):
        train = parts["train"].select(numbers["train"] == i)
        rows[name] = {
            part: samples.select(numbers[part] == i)
            if part in numbers
            else samples.select(torch.isin(samples.y, train.y.unique()))
            for part, samples in parts.items()
        }
    return rows, note


def _named(
    by: str,
    experiences: Any,
    boundaries: Sequence[float | str] | None,
    values: Sequence[str],
    known: Collection[str],
) -> tuple[Sequence[str], Mapping[str, int]]:
    """Return the names of the experiences, and the experience of each value.

    Args:
        values: of the training rows, as many as there are.
        known: of all rows.
    """
    distinct = sorted(set(values), key=natural)
    if is_nested(experiences):
        groups = [[str(value) for value in group] for group in experiences]
        _check_values(groups, known, by)
        number = {value: i for i, group in enumerate(groups) for value in group}
        return [" ".join(group) for group in groups], number
    if experiences is None and boundaries is None:
        names = list(dict.fromkeys(values)) if by == SOURCE else distinct  # as they were given
        return names, {value: i for i, value in enumerate(names)}
    cuts = _cuts(values, distinct, by, experiences, boundaries)
    number = {value: bisect_right(cuts, _size(value)) for value in known}
    return _spans(sorted(known, key=natural), number, len(cuts) + 1), number


def _texts(column: np.ndarray) -> list[str]:
    """Return values as text, whole numbers without a point."""
    texts = [str(value) for value in column.tolist()]
    return [t.removesuffix(".0") for t in texts] if column.dtype.kind == "f" else texts


def _size(value: str) -> tuple[Any, ...]:
    """Return a key by which ``100`` and ``100.0`` are equal."""
    return natural(value)[:2]


def _numbers(column: np.ndarray, number: Mapping[str, int]) -> Tensor:
    """Return the experience of each row, (n,) int64; -1 for none."""
    found, inverse = np.unique(column, return_inverse=True)
    table = np.array([number.get(value, -1) for value in _texts(found)], dtype=np.int64)
    return torch.from_numpy(table[inverse])


def _check_values(groups: Sequence[Sequence[str]], known: Collection[str], by: str) -> None:
    given = [value for group in groups for value in group]
    unknown = [value for value in given if value not in known]
    if unknown or len(set(given)) < len(given):
        what = f"unknown {unknown[:5]}" if unknown else "a value is given twice"
        raise BadInput(
            f"stream.experiences are lists of values of {by}: {what}; give each of "
            f"{', '.join(sorted(known, key=natural)):.150} once at most"
        )


def _cuts(
    values: Sequence[str],
    distinct: Sequence[str],
    by: str,
    experiences: Any,
    boundaries: Sequence[float | str] | None,
) -> list[Any]:
    """Return the keys of the values at which experiences begin, but for the first."""
    if boundaries is not None:
        if experiences is not None:
            raise BadInput("give stream.boundaries or stream.experiences, not both")
        cuts = [_size(str(value)) for value in boundaries]
        if sorted(set(cuts)) != cuts:
            raise BadInput(f"stream.boundaries={f'{list(boundaries)}':.80}: give them in order")
        return cuts
    if not isinstance(experiences, int):
        raise BadInput(
            f"stream.experiences={experiences!r:.60} with stream.by={by}: give a number of "
            "intervals or the list of values of each experience, [[...],...]"
        )
    place = {value: i for i, value in enumerate(distinct)}
    ordered = sorted(place[value] for value in values)
    n = len(ordered)
    begins = [ordered[n * k // experiences] for k in range(experiences)]
    if len(set(begins)) < experiences:
        raise BadInput(
            f"stream.experiences={experiences}: {by} has {len(distinct)} different values in {n} "
            "training rows, too few for as many intervals; give fewer, or stream.boundaries"
        )
    return [_size(distinct[i]) for i in begins[1:]]


def _spans(values: Sequence[str], number: Mapping[str, int], n: int) -> list[str]:
    """Return the name of each interval: its first and last value."""
    inside: list[list[str]] = [[] for _ in range(n)]
    for value in values:
        short = f"{float(value):.6g}" if is_number(value) and "." in value else value
        inside[number[value]].append(short)
    names = [f"{group[0]} to {group[-1]}" if len(group) > 1 else "".join(group) for group in inside]
    return [name or f"interval {i}" for i, name in enumerate(names)]
