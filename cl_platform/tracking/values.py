"""What is logged besides numbers, in no library's own form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_BARS = 512  # of a histogram that W&B takes


@dataclass(frozen=True)
class Bars:
    """Values (n,) by index: of prompts, of classes."""

    values: list[float]

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a bar for each value, from 0: heights (n,) and edges (n + 1,).

        Where dashboards take fewer bars, each is the sum of several values in a row.
        """
        n = len(self.values)
        edges = np.append(np.arange(0, n, -(-n // MOST_BARS)), n)
        return np.add.reduceat(np.asarray(self.values, float), edges[:-1]), edges


@dataclass(frozen=True)
class Table:
    """Rows of cells, under the names of their columns."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure."""

    figure: Any


@dataclass(frozen=True)
class Lines:
    """Curves by name over common places, None where one has no value."""

    title: str
    axis: str
    at: list[float]
    curves: dict[str, list[float | None]]


@dataclass(frozen=True)
class Confusion:
    """How many samples of each class are taken for each, (C, C)."""

    counts: np.ndarray


Value = float | Bars | Table | Picture | Lines | Confusion
