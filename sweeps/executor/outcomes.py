"""What becomes of the outcome of a segment: runs that are done or failed, and what follows it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection

from cl_platform.errors import ClpError
from sweeps.executor.folder import SweepFolder
from sweeps.executor.gpus import share_of
from sweeps.executor.luggage import unpack
from sweeps.executor.pool import SegmentBatch, WorkerDied
from sweeps.executor.task import Outcome
from sweeps.executor.tree import Segment, grow
from sweeps.record import Phase, is_done, write_failure

MOST_ATTEMPTS = 3  # for a segment whose workers die
MOST_LETTERS = 300  # of the error of a library


class Outcomes:
    """Records the outcomes of the segments of a sweep.

    Attributes:
        gpus: what a run needs of a GPU, once it was measured and until somebody has used it.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.gpus: float | None = None
        self._printed: set[str] = set()

    def record(
        self,
        phase: Phase,
        batch: SegmentBatch,
        outcome: Outcome | WorkerDied,
        ready: deque[Segment],
        trained_before: Collection[str],
    ) -> bool:
        """Record an outcome and queue the segments that follow.

        Args:
            trained_before: addresses of states that the phase found there.

        Returns:
            Whether the batch is finished; otherwise its first segment is queued again, alone.
        """
        segment = batch[0]
        if isinstance(outcome, WorkerDied):
            segment.attempts += outcome.begun
            again = segment.attempts < MOST_ATTEMPTS
            outcome = Outcome({}, f"lost {segment.attempts} workers: {outcome.reason}")
        else:
            again = outcome.error is not None and len(batch) > 1
        unpack(self.folder.out, outcome.files)
        for line in outcome.stderr.splitlines():
            if line not in self._printed:  # once, however many workers write it
                self._printed.add(line)
                print(line, file=sys.stderr)
        if outcome.fatal:
            raise ClpError(outcome.error)
        if outcome.out_of_memory and not again and not segment.exclusive:
            again = segment.exclusive = True
        if again:
            segment.alone = True  # to find which of several is to blame
            ready.append(segment)
            return False
        if outcome.error is not None and segment.lanes:  # which of them it is of
            ready.extend(grow(segment.runs))
            return False
        for done in batch:
            done.finished = True
        if outcome.error is not None:
            self._fail(phase, segment, outcome, ready)
            return True
        new = {key for done in batch for key in done.keys}.difference(trained_before)
        self._measure(outcome if new else Outcome({}))
        phase.tally.trained += len(new)
        phase.metrics |= outcome.metrics
        phase.done |= outcome.metrics.keys()
        phase.tally.done = len(phase.done)
        if len(batch) == 1:
            _go_on(segment, outcome, ready)
        return True

    def _measure(self, outcome: Outcome) -> None:
        """Note what a run takes of a GPU."""
        if outcome.gpu is not None and self.gpus is None:
            used, total = outcome.gpu
            self.gpus = share_of(used, total)
            print(
                f"resources.gpus=auto: the first run took {used / 1e9:.2g} of {total / 1e9:.3g} "
                f"GB of a GPU, which {int(1 / self.gpus)} runs at most share",
                file=sys.stderr,
            )

    def _fail(
        self, phase: Phase, segment: Segment, outcome: Outcome, ready: deque[Segment]
    ) -> None:
        """Record the error with every run that needs the segment.

        If all of its states have been made, the runs below it go on: the fault lies in what came
        after, such as the end of a run.
        """
        assert outcome.error is not None
        error = outcome.error.removeprefix(f"run {segment.run.run_id} ")  # of several runs
        if segment.exclusive and outcome.out_of_memory:
            error = f"{error[:MOST_LETTERS]}; it had the GPU to itself: lower batch_size"
        out, failed = self.folder.out, segment.all_runs()
        if segment.children and self.folder.trained([segment.run.keys[segment.end]]):
            failed = segment.runs
            _go_on(segment, outcome, ready)
        else:
            for below in segment.walk():
                below.finished = True
        for run in failed:
            if run.whole and is_done(out, run):  # before its worker died
                phase.done.add(run.run_id)
            else:
                phase.errors[run.run_id] = error
                write_failure(out, run, error, outcome.details)
        phase.tally.failed, phase.tally.done = len(phase.errors), len(phase.done)


def _go_on(segment: Segment, outcome: Outcome, ready: deque[Segment]) -> None:
    """Queue the segments that follow one that was carried out."""
    for child in segment.children:
        child.spent = segment.spent
        child.known = child.run.keys[: child.start + 1]
        child.stored = child.known[-1] in outcome.stored
    ready.extend(reversed(segment.children))
