"""The folder of a sweep as its driver sees it: what is there, and what has to go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from cl_platform.storage.files import SLACK, each, exists, present
from cl_platform.storage.state_store import StateStore
from sweeps.planning import Run
from sweeps.record import failure, is_done

ENDED = ("result", "failed")  # files of a run that has ended


class SweepFolder:
    """Look-ups in the folder of a sweep, few of them where it is at an address.

    Args:
        budget_gb: of all states together.
    """

    def __init__(self, out: Path, budget_gb: float) -> None:
        self.out, self.states = out, out / "states"
        self.budget_gb, self.budget = budget_gb, int(budget_gb * 1e9)
        self._store = StateStore(self.states, budget=None)
        self._seen: set[str] = set()
        self._left = self._added = 0  # bytes after the last eviction, and since
        self._said = False

    def ended(self, runs: Collection[Run]) -> list[tuple[str | None, bool]]:
        """Return of each run its error, if it failed before, and whether it has a result."""
        names = [f"{run.run_id}/{name}.json" for run in runs for name in ENDED]
        there = {name.partition("/")[0] for name in present(self.out / "runs", names)}

        def read(run: Run) -> tuple[str | None, bool]:
            if run.run_id not in there:
                return None, False
            return failure(self.out, run), run.whole and is_done(self.out, run)

        return each(self.out, read, runs)

    def trained(self, keys: Collection[str]) -> set[str]:
        """Return the keys that have a record in the store."""
        names = {_record(key): key for key in keys}
        found = {names[name] for name in present(self.states, names)}
        self._seen |= found
        return found

    def made(self, keys: Iterable[str]) -> set[str]:
        """Return which of the states are there that a worker makes one after the other.

        So one look for each that is new is enough, however often this is asked.
        """
        found: set[str] = set()
        for key in keys:
            if key not in self._seen and not exists(self.states / _record(key)):
                break
            found.add(key)
        self._seen |= found
        return found

    def hold_budget(self, written: int, pinned: Callable[[], set[str]] | None) -> None:
        """Remove old states if there are more than the budget allows, none of the pinned keys.

        The driver alone does so, for all workers.

        Args:
            written: bytes of states that were added.
            pinned: returns the states that must stay; None at the end, when none must.
        """
        self._added += written
        stuck = self._left > self.budget and self._added <= SLACK * self.budget
        due = self._store.is_due(self.budget, written)
        if not due or (stuck and pinned is not None):
            return
        self._left = self._store.evict(self.budget, pinned() if pinned else ())
        self._added = 0
        if self._left > self.budget and not self._said:
            self._said = True
            print(
                f"states that runs still go on from take {self._left / 1e9:.2g} GB, more than "
                f"state_budget_gb={self.budget_gb:g}; they are kept until then",
                file=sys.stderr,
            )


def _record(key: str) -> str:
    return f"{key[:2]}/{key}.json"
