"""The accuracy matrix: what every metric of forgetting and transfer is computed from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from cl_platform.errors import BadInput

Mask = Literal["seen", "task", "all"]
MASKS: tuple[Mask, ...] = ("seen", "task", "all")
OWN_MASK: dict[str, Mask] = {"class": "seen", "task": "task", "domain": "all"}
"""The mask that a scenario asks its question under."""
Accuracies = dict[str, dict[str, float]]
"""Accuracy by mask and experience identity: one row of the matrix under every mask."""


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """R of shape (S+1, T): entry [i, j] is the accuracy on experience j after i steps.

    Row 0 is before any training. Each step learns one experience; columns stand in the order of
    learning, and S is T, unless experiences come again, rows are left out or columns are held out.
    The calibration errors of a run have the same form; where nothing could be predicted they are
    nan.

    Args:
        values: accuracies in [0, 1], float64.
        experience_ids: the identity of each column's experience.
        names: what people read for each column.
        visits: the column that each step learns; if empty, 0, 1, 2, ...
        rows: after how many steps each row was measured; if empty, after every step.
        held_out: the columns that are never learned.
        sizes: test samples of each column, if known.
        chances: the accuracy of guessing in each column, if known; see :func:`chances`.
    """

    values: np.ndarray
    experience_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    visits: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    chances: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        columns = values.shape[-1] if values.ndim == 2 else 0
        visits = tuple(self.visits) or tuple(range(columns - len(self.held_out)))
        rows = tuple(self.rows) or tuple(range(len(visits) + 1))
        if values.shape != (len(rows), columns) or not values.size or rows[0] != 0:
            raise BadInput(
                f"an accuracy matrix of shape {values.shape}: expected (T+1, T), "
                "with the row before training first"
            )
        for name, value in {"values": values, "visits": visits, "rows": rows}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return int(self.values.shape[1])

    def trained(self) -> AccuracyMatrix:
        """Return the matrix without the columns that are held out."""
        if not self.held_out:
            return self
        kept = [j for j in range(len(self)) if j not in self.held_out]
        place = {j: i for i, j in enumerate(kept)}
        facts = self._facts(kept)
        facts["visits"] = tuple(place[j] for j in self.visits)
        return AccuracyMatrix(self.values[:, kept], rows=self.rows, **facts)

    def _facts(self, columns: Sequence[int]) -> dict[str, tuple[Any, ...]]:
        return {
            name: tuple(getattr(self, name)[j] for j in columns)
            for name in ("experience_ids", "names", "sizes", "chances")
            if getattr(self, name)
        }

    def __getitem__(self, key: tuple[int, int]) -> float:
        return float(self.values[key])

    def __eq__(self, other: object) -> bool:
        """Compare bits in the same columns; what is undefined in both is equal."""
        return (
            isinstance(other, AccuracyMatrix)
            and self.experience_ids == other.experience_ids
            and (self.visits, self.rows) == (other.visits, other.rows)
            and bool(np.array_equal(self.values, other.values, equal_nan=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def learned(self, visit: Literal["first", "last"] = "last") -> tuple[np.ndarray, np.ndarray]:
        """Return the columns that were learned and the row right after each, in order of learning.

        Where rows are left out it is the first one after that, and columns are left out that have
        only the last one although other steps came before it: what was forgotten there is unknown.

        Args:
            visit: of an experience that was learned more than once, after which of its visits.
        """
        steps = {column: i for i, column in enumerate(self.visits, 1)}
        if visit == "first":
            steps = {column: i for i, column in reversed([*enumerate(self.visits, 1)])}
        begun, end = self.rows[-2] if len(self.rows) > 1 else 0, self.rows[-1]
        known = [column for column, k in steps.items() if k <= begun or k == end]
        columns = sorted(known, key=lambda column: steps[column])
        rows = np.searchsorted(self.rows, [steps[column] for column in columns])
        return np.array(columns, dtype=int), rows

    def after(self, k: int) -> np.ndarray:
        """Return the row after k steps, (T,).

        Raises:
            BadInput: it was left out.
        """
        if k not in self.rows:
            raise BadInput(
                f"nothing was evaluated after {k} steps: give one of "
                f"{', '.join(map(str, self.rows[:20]))}"
            )
        row: np.ndarray = self.values[self.rows.index(k)]
        return row

    def labels(self) -> list[str]:
        """Return the name of what each row was measured after; ``untrained`` for the first."""
        names = self.names or tuple(str(j + 1) for j in range(len(self)))
        return ["untrained", *(f"{k}: {names[self.visits[k - 1]]}" for k in self.rows[1:])]

    def steps(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield each row but the first with the columns that were learned since the row before."""
        for i, (begin, end) in enumerate(pairwise(self.rows), 1):
            yield i, self.visits[begin:end]

    def last(self) -> dict[str, float]:
        """Return the accuracies after the last experience, by identity."""
        return dict(zip(self.experience_ids, self.values[-1].tolist(), strict=True))

    def tolist(self) -> list[list[float]]:
        """Return the rows as lists, for JSON; floats survive the round trip bit by bit."""
        return [[float(v) for v in row] for row in self.values]

    @classmethod
    def from_rows(
        cls,
        accuracies: Sequence[Mapping[str, float | None]],
        experience_ids: Sequence[str],
        names: Sequence[str],
        visits: Sequence[int] = (),
        **fields: Any,
    ) -> AccuracyMatrix:
        """Return a matrix from one mapping (identity -> accuracy, None for nan) per row.

        Args:
            fields: the others of the matrix.
        """
        values = np.array(
            [[row[e] for e in experience_ids] for row in accuracies], dtype=np.float64
        )
        return cls(values, tuple(experience_ids), tuple(names), tuple(visits), **fields)


def chances(
    mask: Mask, classes: Sequence[Collection[int]], n_classes: int, held_out: Collection[int] = ()
) -> tuple[float, ...]:
    """Return the accuracy of guessing in each column: 1 / the classes that may be predicted.

    Those are a column's own under the mask ``task``, all that are learned by the end under
    ``seen``, and all of the stream under ``all``.

    Args:
        classes: those of each column.
        n_classes: of the stream.
        held_out: the columns that are never learned.
    """
    if mask == "task":
        return tuple(1 / len({*own}) for own in classes)
    if mask == "seen":
        n_classes = len({c for j, own in enumerate(classes) if j not in held_out for c in own})
    return (1 / n_classes,) * len(classes)


def evenly(n: int, most: int) -> list[int]:
    """Return the places of at most so many of n items, evenly apart: the first and the last, and
    all of few."""
    return sorted({i * (n - 1) // max(1, min(n, most) - 1) for i in range(min(n, most))})
