"""The accuracy matrix: what every metric of forgetting and transfer is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
    learning, and S is T, unless experiences come again. The calibration errors of a run have the
    same form; where nothing could be predicted they are nan.

    Args:
        values: accuracies in [0, 1], float64.
        experience_ids: the identity of each column's experience.
        names: what people read for each column.
        visits: the column that each step learns, S numbers; if empty, 0, 1, ... T-1.
    """

    values: np.ndarray
    experience_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    visits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        steps = len(self.visits) or (values.shape[-1] if values.ndim == 2 else 0)
        if values.ndim != 2 or values.shape[0] != steps + 1 or not values.size:
            raise BadInput(
                f"an accuracy matrix of shape {values.shape}: expected (T+1, T), "
                "with the row before training first"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "visits", tuple(self.visits) or tuple(range(steps)))

    def __len__(self) -> int:
        return int(self.values.shape[1])

    def __getitem__(self, key: tuple[int, int]) -> float:
        return float(self.values[key])

    def __eq__(self, other: object) -> bool:
        """Compare bits in the same columns; what is undefined in both is equal."""
        return (
            isinstance(other, AccuracyMatrix)
            and self.experience_ids == other.experience_ids
            and self.visits == other.visits
            and bool(np.array_equal(self.values, other.values, equal_nan=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def learned(self, visit: Literal["first", "last"] = "last") -> tuple[np.ndarray, np.ndarray]:
        """Return the columns that were learned and the row right after each, in order of the rows.

        Args:
            visit: of an experience that was learned more than once, after which of its visits.
        """
        rows = {column: i for i, column in enumerate(self.visits, 1)}
        if visit == "first":
            rows = {column: i for i, column in reversed([*enumerate(self.visits, 1)])}
        columns = sorted(rows, key=lambda column: rows[column])
        return np.array(columns), np.array([rows[column] for column in columns])

    def last(self) -> dict[str, float]:
        """Return the accuracies after the last experience, by identity."""
        return dict(zip(self.experience_ids, self.values[-1].tolist(), strict=True))

    def tolist(self) -> list[list[float]]:
        """Return the rows as lists, for JSON; floats survive the round trip bit by bit."""
        return [[float(v) for v in row] for row in self.values]

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, float | None]],
        experience_ids: Sequence[str],
        names: Sequence[str],
        visits: Sequence[int] = (),
    ) -> AccuracyMatrix:
        """Return a matrix from one mapping (identity -> accuracy, None for nan) per row."""
        values = np.array([[row[e] for e in experience_ids] for row in rows], dtype=np.float64)
        return cls(values, tuple(experience_ids), tuple(names), tuple(visits))
