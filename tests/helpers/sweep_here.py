"""A driver without Ray: the workers' own code in the process of the test, in tenths of a second."""

from __future__ import annotations

from collections import deque

from sweeps.executor.driver import Driver
from sweeps.executor.pool import task_of
from sweeps.executor.worker import Worker, WorkerConfig
from sweeps.record import Phase
from sweeps.spec import Resources
from tests.helpers.sweep_runs import PLANNER


class Here(Driver):
    """Carries out everything in this process."""

    worker: Worker | None = None

    def carry_out(self, phase: Phase) -> None:
        ready = deque(self.survey(phase))
        if self.worker is None:
            keep, share = self.spec.states_to_keep, self.spec.share
            self.worker = Worker(WorkerConfig(self.out, keep, 10**10, share, Resources(), {}))
            self.worker.planner = PLANNER
        while ready:
            segment = ready.popleft()
            outcome = self.worker.carry_out(task_of([segment]))
            self.record_outcome(phase, [segment], outcome, ready)
            self.watch(phase)
