"""The rows of an accuracy matrix as they come, and what is logged of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cl_platform.core.matrix import OWN_MASK, Accuracies, AccuracyMatrix, Mask, chances
from cl_platform.core.predictions import unpacked
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.metrics.prediction_metrics import confusion
from cl_platform.results.result import Result
from cl_platform.storage.files import location
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Event

MOST_CLASSES = 100  # of a confusion matrix


class Rows:
    """Rows by the number of experiences learned; they are logged in their order.

    Args:
        start: the event that a run begins with.
    """

    def __init__(self, start: Event) -> None:
        self._start = start
        self._visits = [column for column, _ in start["visits"]]  # unless one follows the other
        self._rows: dict[int, Accuracies] = {}
        self._measured: dict[int, dict[str, float | None]] = {}  # besides rows, likewise
        self._predictions: dict[int, str | None] = {}  # where they are
        self._probes: dict[int, dict[str, float]] = {}  # by identity
        self._logged: list[int] = []
        self.own: Mask = OWN_MASK[start["scenario"]]

    def add(self, event: Event) -> None:
        """Take the row of an `evaluated` event."""
        self._rows[event["step"]] = event["rows"]["test"]
        self._measured[event["step"]] = event.get("measured", {})
        self._predictions[event["step"]] = event.get("predictions")
        self._probes[event["step"]] = event.get("probes", {})

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
                self._predictions[k] = result.kept[i] if result.kept else None
                if result.probes is not None:
                    row = zip(result.probes.experience_ids, result.probes.tolist()[i], strict=True)
                    self._probes[k] = {name: v for name, v in row if not math.isnan(v)}

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
        columns, visits = self._columns(self._logged[-1])
        experiences = self._start["experiences"]
        ids = [experiences[j]["identity"] for j in columns]
        names = [experiences[j]["name"] for j in columns]
        rows = [self._rows[i][self.own] for i in self._logged]
        classes = [e["classes"] for e in experiences]
        chance = chances(self.own, classes[: len(columns)], 1 + max(map(max, classes)))
        return AccuracyMatrix.from_rows(
            rows, ids, names, visits or columns, rows=self._logged, chances=chance
        )

    def _columns(self, k: int) -> tuple[range, list[int]]:
        """Return the columns that k steps can have learned, and what each of them did, if one does
        not follow the other."""
        visits = self._visits[:k]
        learned = sum(not e.get("held_out") for e in self._start["experiences"])
        return range(learned if visits else k), visits

    def values(self, k: int) -> dict[str, float]:
        """Return the numbers that are logged after k experiences, the last row logged; before
        training, of what is held out and of probes alone."""
        return {**(self._of_learned(k) if k else {}), **self._held_out(k)}

    def _of_learned(self, k: int) -> dict[str, float]:
        columns, visits = self._columns(k)
        logged: dict[str, float] = {}
        if self._start.get("teacher"):
            logged["teacher/experience"] = visits[-1] + 1
        ids = [self._start["experiences"][j]["identity"] for j in columns]
        for mask, accuracies in self._rows[k].items():
            values = {j: accuracies[ids[j]] for j in sorted({*visits}) or columns}
            logged[f"accuracy/{mask}/average"] = sum(values.values()) / len(values)
            for j, value in values.items():
                logged[f"accuracy/{mask}/experience_{j + 1}"] = value
        measured = self._measured.get(k, {}).items()
        logged |= {f"plasticity/{n}": value for n, value in measured if value is not None}
        metrics = compute_metrics(self.matrix())
        return logged | {f"so_far/{n}": v for n, v in metrics.items() if not math.isnan(v)}

    def _held_out(self, k: int) -> dict[str, float]:
        """Return what is logged of columns held out, and of probes."""
        experiences = self._start["experiences"]
        place = {e["identity"]: j for j, e in enumerate(experiences, 1)}
        held = [e["identity"] for e in experiences if e.get("held_out")]
        found = {
            f"held_out/{mask}": {identity: accuracies[identity] for identity in held}
            for mask, accuracies in self._rows[k].items()
        }
        logged: dict[str, float] = {}
        for name, row in {**found, "probe": self._probes.get(k, {})}.items():
            if row:
                logged[f"{name}/average"] = sum(row.values()) / len(row)
                logged |= {f"{name}/column_{place[i]}": value for i, value in row.items()}
        return logged

    def confusion(self, k: int, out: str | Path) -> np.ndarray | None:
        """Return how many test samples of each class are taken for each, (C, C), after k
        experiences; None where no predictions are kept in `out`, or classes are many."""
        labels, address = self._start.get("labels", ()), self._predictions.get(k)
        if address is None or not 0 < len(labels) <= MOST_CLASSES:
            return None
        packed = StateStore(location(out) / "states").predicted(address)
        if packed is None:
            return None
        ids = [e["identity"] for e in self._start["experiences"]]
        return confusion(unpacked(packed, ids, labels))
