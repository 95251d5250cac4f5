"""A driver without Ray: the workers' own code in the process of the test, in tenths of a second."""

from __future__ import annotations

from collections import deque

from sweeps.executor.driver import Driver
from sweeps.executor.pool import _task
from sweeps.executor.worker import Orders, Worker
from sweeps.record import Phase
from tests.helpers.sweep_runs import PLANNER


class Here(Driver):
    """Carries out everything in this process."""

    worker: Worker | None = None

    def carry_out(self, phase: Phase) -> None:
        ready = deque(self.survey(phase))
        if self.worker is None:
            keep, share = self.spec.kept, self.spec.share
            self.worker = Worker(Orders(self.out, keep, 10**10, share, 1, False, {}))
            self.worker.planner = PLANNER
        while ready:
            segment = ready.popleft()
            outcome = self.worker.carry_out(_task([segment]))
            self._note(phase, [segment], outcome, ready)
            self.watch(phase)
