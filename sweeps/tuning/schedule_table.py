"""What every replay schedule reaches in one environment: the sweep's tree as a table.

An environment is a stream in the order and with the randomness of one seed. The beginnings of
schedules are the states of the tree, and each is trained once, so that a policy learns by walking
the table and trains no network of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cl_platform.core.matrix import OWN_MASK
from cl_platform.errors import BadInput
from cl_platform.results.result import Result
from sweeps.tuning.schedule_search import ReplaySchedule, actions

Beginning = tuple[int, ...]
"""For each experience so far the number of its action, in the order of :func:`actions`."""


@dataclass(frozen=True)
class ScheduleTable:
    """Validation accuracies after every beginning of every schedule of one environment.

    Args:
        n_experiences: of the stream.
        rows: by beginning, the accuracy on each experience learned, in the order of learning; for
            none learned, an empty row.

    Raises:
        BadInput: a beginning is missing.
    """

    n_experiences: int
    rows: Mapping[Beginning, tuple[float, ...]]

    def __post_init__(self) -> None:
        waiting: list[Beginning] = [()]
        while waiting:
            beginning = waiting.pop()
            if len(self.rows.get(beginning, ())) != len(beginning) or beginning not in self.rows:
                raise BadInput(f"the table of schedules has no row {list(beginning)}")
            waiting += self.children(beginning)

    def children(self, beginning: Beginning) -> list[Beginning]:
        """Return the beginnings that are one experience longer."""
        k = len(beginning)
        if k == self.n_experiences:
            return []
        return [(*beginning, action) for action in range(len(actions(k)))]

    def reward(self, beginning: Beginning) -> float:
        """Return the mean accuracy on what was learned, after the last experience of it."""
        return fmean(self.rows[beginning])

    def best(self) -> Beginning:
        """Return a schedule with the largest sum of rewards, by dynamic programming."""
        return self._best(())[1]

    def _best(self, beginning: Beginning) -> tuple[float, Beginning]:
        """Return the largest sum of rewards that follows a beginning, and a schedule with it."""
        after = [
            (self.reward(child) + value, whole)
            for child in self.children(beginning)
            for value, whole in [self._best(child)]
        ]
        return max(after, key=lambda found: found[0], default=(0.0, beginning))

    def total(self, schedule: Beginning) -> float:
        """Return the sum of the rewards along a schedule."""
        return sum(self.reward(schedule[:k]) for k in range(1, len(schedule) + 1))

    def average(self, beginning: Beginning = ()) -> float:
        """Return the expected sum of rewards of actions drawn at random."""
        after = [self.reward(c) + self.average(c) for c in self.children(beginning)]
        return fmean(after) if after else 0.0

    def follow(self, choose: Callable[[Sequence[float]], int]) -> Beginning:
        """Return the schedule that is chosen by accuracies, one action after the other."""
        schedule: Beginning = ()
        while len(schedule) < self.n_experiences:
            schedule = (*schedule, choose(self.rows[schedule]))
        return schedule


def table_of(results: Mapping[ReplaySchedule, Result]) -> ScheduleTable:
    """Return the table of the results of all schedules, in the same environment.

    Raises:
        BadInput: schedules are missing, or a stream has no validation data.
    """
    rows: dict[Beginning, tuple[float, ...]] = {(): ()}
    for schedule, result in results.items():
        numbers = tuple(actions(k).index(shares) for k, shares in enumerate(schedule))
        matrix = result.validation.get(OWN_MASK[result.scenario])
        if matrix is None:
            raise BadInput(f"stream {result.stream!r} has no validation data to learn from")
        for k in range(1, len(numbers) + 1):
            rows[numbers[:k]] = tuple(matrix.values[k, :k].tolist())
    return ScheduleTable(max(map(len, results)), rows)
