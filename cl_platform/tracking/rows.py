"""The rows of an accuracy matrix as they come, and what is logged of each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cl_platform.core.matrix import OWN_MASK, Accuracies, AccuracyMatrix
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.results.result import Result
from cl_platform.tracking.sinks import Event


class Rows:
    """Rows by the number of experiences learned; they are logged in their order.

    Args:
        start: the event that a run begins with.
    """

    def __init__(self, start: Event) -> None:
        self._start = start
        self._visits = [column for column, _ in start["visits"]]  # unless one follows the other
        self._rows: dict[int, dict[str, Accuracies]] = {}
        self._measured: dict[int, dict[str, float | None]] = {}  # besides rows, likewise
        self._logged: list[int] = []
        self.own: str = OWN_MASK[start["scenario"]]

    def add(self, event: Event) -> None:
        """Take the row of an `evaluated` event."""
        self._rows[event["step"]] = event["rows"]["test"]
        self._measured[event["step"]] = event.get("measured", {})

    def decide(self, event: Event) -> None:
        """Take what a teacher decided."""
        self._visits.append(event["experience"])

    def complete(self, result: Result) -> None:
        """Take the rows that nothing was evaluated for: the run had ended before, or one state
        stands for all of them."""
        self._visits = [experience for experience, _ in result.visits]
        for i, k in enumerate(result.matrix.rows):
            if k not in self._logged:
                self._rows[k] = {
                    mask: dict(zip(matrix.experience_ids, matrix.values[i].tolist(), strict=True))
                    for mask, matrix in result.matrices.items()
                }
                self._measured[k] = {name: v[i] for name, v in result.plasticity.items()}

    def ready(self) -> Iterator[int]:
        """Yield the rows that are there, up to the first that is not."""
        while (k := self._next()) in self._rows:
            self._logged.append(k)
            yield k

    def _next(self) -> int:
        """Return the row to be logged next, by the number of experiences learned."""
        rows, n = self._start.get("rows"), len(self._logged)
        if rows is None:
            return n
        return int(rows[n]) if n < len(rows) else -1

    def matrix(self) -> AccuracyMatrix:
        """Return the matrix of the rows logged so far, under the scenario's own mask."""
        experiences, visits = self._start["experiences"], self._visits[: self._logged[-1]]
        columns = range(len(experiences) if visits else self._logged[-1])  # come again: all
        ids = [experiences[j]["identity"] for j in columns]
        names = [experiences[j]["name"] for j in columns]
        rows = [self._rows[i][self.own] for i in self._logged]
        return AccuracyMatrix.from_rows(rows, ids, names, visits or columns, rows=self._logged)

    def values(self, k: int) -> dict[str, float]:
        """Return the numbers that are logged after k experiences, the last row logged."""
        experiences, visits = self._start["experiences"], self._visits[:k]
        columns = range(len(experiences) if visits else k)
        ids = [experiences[j]["identity"] for j in columns]
        logged: dict[str, float] = {}
        if self._start.get("teacher"):
            logged["teacher/experience"] = visits[-1] + 1
        for mask, accuracies in self._rows[k].items():
            values = {j: accuracies[ids[j]] for j in sorted({*visits}) or columns}
            logged[f"accuracy/{mask}/average"] = sum(values.values()) / len(values)
            for j, value in values.items():
                logged[f"accuracy/{mask}/experience_{j + 1}"] = value
        measured = self._measured.get(k, {}).items()
        logged |= {f"plasticity/{n}": value for n, value in measured if value is not None}
        metrics = compute_metrics(self.matrix())
        return logged | {f"so_far/{n}": v for n, v in metrics.items() if not math.isnan(v)}
