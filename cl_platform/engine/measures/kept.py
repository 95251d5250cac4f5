"""The predictions of a run: what is kept of which rows, and where."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from cl_platform.core.digests import digest
from cl_platform.core.predictions import Keeping, row_bytes
from cl_platform.engine.plan import Plan
from cl_platform.errors import say_once
from cl_platform.storage.state_store import StateStore


class KeptPredictions:
    """The predictions of a plan's states, in its store and of this session.

    Attributes:
        packed: what was found or made in this session, by address.
    """

    def __init__(self, plan: Plan, store: StateStore) -> None:
        self.store = store
        scored = plan.stream.scored
        identities = sorted({e.identity for e in scored})
        self._scoring = digest(identities, plan.evaluator)[:8]  # on what and by what
        samples = sum(len(e.test) for e in scored)
        size = row_bytes(samples, plan.stream.n_classes, store.predictions == "scores")
        self._size = max(1, size)  # there may be no test data
        self._room = int(store.prediction_budget // self._size)
        self.packed: dict[str, dict[str, Any]] = {}
        self.follow(plan)

    def follow(self, plan: Plan) -> None:
        """Go on with the plan of a teacher that has grown."""
        self.plan = plan
        self._rows = plan.rows(len(plan.steps))

    def wanted(self, k: int) -> Keeping:
        """Return what to keep of the predictions of a row.

        Where a run's budget is too small for all rows, the first and the last are kept (of a
        teacher, which may always go on, the first).
        """
        store, ends = self.store, self.plan.teacher is None
        if store.predictions == "none" or bisect_left(self._rows, k) < self._room - ends:
            return store.predictions
        if ends and k == len(self.plan.steps) and self._room:
            return store.predictions
        say_once(
            f"run {self.plan.run_id}: predictions of {self._room} rows fit into "
            f"{store.prediction_budget / 1e6:g} MB (prediction_budget_mb), {self._size / 1e6:.2g} "
            "MB each; those of other rows are not kept"
        )
        return "none"

    def keep(self, k: int, packed: dict[str, Any] | None) -> None:
        """Store the predictions of a row, if there are any."""
        if packed is not None:
            self.store.save_predictions(self._address(k), packed)
            self.packed[self._address(k)] = packed

    def lacking(self, rows: Sequence[int]) -> Iterator[int]:
        """Look for the predictions of rows, and yield those that have not all that is wanted."""
        for k in rows:
            if (keep := self.wanted(k)) == "none":
                continue
            if packed := self.store.predicted(address := self._address(k)):
                self.packed[address] = packed
            if not packed or (keep == "scores" and "scores" not in packed):
                yield k

    def address(self, k: int) -> str | None:
        """Return where the predictions of a state are; None where they are not kept."""
        address = self._address(k)
        return address if address in self.packed else None

    def _address(self, k: int) -> str:
        return f"{self.plan.keys[k]}.{self._scoring}"
