"""A search for the replay schedule that is best on validation data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

import cl_platform as clp
from cl_platform.errors import BadInput
from sweeps.tuning.tree_search import TreeSearch

Proportions = tuple[float, ...]
ReplaySchedule = tuple[Proportions, ...]
"""For each experience the shares of the memory that the experiences before it get."""
Reward = Callable[[ReplaySchedule], float]


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Args:
        schedule: the best of all that were tried, by validation data.
        result: the run with it; the search did not use its test metrics.
        rewards: mean validation accuracy after the last experience, of every schedule tried.
    """

    schedule: ReplaySchedule
    result: clp.Result
    rewards: dict[ReplaySchedule, float]


def search_schedule(
    stream: Any,
    *,
    iterations: int = 100,
    exploration: float = 0.1,
    seed: int = 0,
    out: str | Path | None = None,
    strategy: dict[str, Any] | None = None,
    **settings: Any,
) -> Found:
    """Search the schedules of `scheduled-replay` on a stream by Monte Carlo tree search.

    Every roll-out is a run whose states are kept, so that schedules share their common beginning.
    The reward is accuracy on validation data, which the stream must have (``validation=0.15``).

    Source: Klasson et al. 2023, Algorithm 1.

    Args:
        stream, settings: as for :func:`cl_platform.run`; `seed` is that of the runs and the search.
        iterations: number of roll-outs; exploration: the constant c of UCT.
        out: folder of runs and states; None for a temporary one.
        strategy: further parameters of ``scheduled-replay``.
    """
    results: dict[ReplaySchedule, clp.Result] = {}

    def reward(schedule: ReplaySchedule) -> float:
        parameters = {"schedule": [list(shares) for shares in schedule], **(strategy or {})}
        section = {"name": "scheduled-replay", **parameters}
        result = clp.run(stream, section, seed=seed, out=folder, **settings)
        if "validation/average_accuracy" not in result.metrics:
            raise BadInput(
                f"stream {result.stream!r} has no validation data to choose a schedule by: give it "
                "some, for example validation=0.15"
            )
        results[schedule] = result
        return result.metrics["validation/average_accuracy"]

    with tempfile.TemporaryDirectory() as temporary:
        folder = out or temporary
        n = len(clp.run(stream, "scheduled-replay", seed=seed, out=folder, **settings).experiences)
        rewards = dict(tree_search(reward, n, iterations, exploration, seed))
    best = max(rewards, key=lambda s: rewards[s])
    return Found(best, results[best], rewards)


def schedules(n_experiences: int) -> Iterator[ReplaySchedule]:
    """Yield all schedules: 1, 3, 30, 1050 for 2 to 5 experiences."""
    yield from product(*(actions(k) for k in range(n_experiences)))


def tree_search(
    reward: Reward, n_experiences: int, iterations: int, exploration: float = 0.1, seed: int = 0
) -> Iterator[tuple[ReplaySchedule, float]]:
    """Yield schedules and their rewards, each once, in the order in which they are tried."""

    def moves(schedule: ReplaySchedule) -> list[tuple[float, ...]]:
        return actions(len(schedule)) if len(schedule) < n_experiences else []

    search = TreeSearch(moves, exploration, seed)
    for _ in range(iterations):
        schedule = search.propose()
        if schedule is None:
            return
        found = reward(schedule)
        search.record(schedule, found)
        yield schedule, found


def actions(past: int) -> list[Proportions]:
    """Return all ways to divide a memory among `past` experiences in steps of 1/past.

    These are combinations with replacement of `past` items: 1, 3, 10, 35, 126 for 1 to 5.
    """
    if not past:
        return [()]
    return [
        tuple(chosen.count(j) / past for j in range(past))
        for chosen in combinations_with_replacement(range(past), past)
    ]
