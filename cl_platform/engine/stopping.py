"""Early stopping: when the epochs of an experience end before their number is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cl_platform.engine.steps import Snapshot

if TYPE_CHECKING:
    from cl_platform.config.training import EarlyStopping


class Stopper:
    """Watches a score after epochs, and says when to stop.

    Source: Prechelt 1998, "Early Stopping - But When?", with patience as the criterion.

    Args:
        score: evaluates what is being trained, on validation data alone and without a trace; more
            is better.
        snapshot: copies what training changes, to go back to.
    """

    def __init__(
        self, config: EarlyStopping, score: Callable[[], float], snapshot: Callable[[], Snapshot]
    ) -> None:
        self.config, self.score, self.snapshot = config, score, snapshot
        self.best = -float("inf")
        self.waited = 0
        self.kept: Snapshot | None = None

    def stops_after(self, epochs: int) -> bool:
        """Return whether to stop after so many epochs."""
        if epochs % self.config.every:
            return False
        value = self.score()
        if value > self.best:
            self.best, self.waited = value, 0
            if self.config.restore_best:
                self.kept = self.snapshot()
        else:
            self.waited += 1
        return self.waited >= self.config.patience

    def finish(self) -> None:
        """Go back to the best state that was seen, unless the last one is wanted."""
        if self.kept is not None and self.waited:
            self.kept.restore()
