"""Streams of a thousand slices: whether a late slice takes longer than an early one.

Slices of 20 samples over ten columns, a small perceptron, experience replay, a state saved after
each. The median CPU time of the slices 800 to 1000 as a ratio to that of the slices 100 to 300, and
by how much the memory of the process grows from the first tenth to the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.cases.planning import resident
from benchmarks.measure import Effort, Goal, Row
from cl_platform import Samples, Stream
from cl_platform.config.run_config import parse_config
from cl_platform.core.stream import Experience
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import State, StateStore
from cl_platform.tracking.sinks import Trackers

COLUMNS, TRAIN, TEST, FEATURES = 10, 20, 20, 16
TEACHER = {"name": "teacher:sec", "reward": "progress"}
WAYS: dict[str, dict[str, Any]] = {
    "a row after each": {},
    "one row at the end": {"evaluate": "last"},
    "hidden boundaries": {"evaluate": "last", "boundaries": "hidden"},
    "a teacher": {"curriculum": TEACHER},
}
RATIO, GROWTH = Goal("at most", 1.1), Goal("at most", 40.0)


class Noting(StateStore):
    """Notes the CPU time and the memory of the process whenever a state is saved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, keep="last")
        self.seconds: list[float] = []
        self.memory: list[float] = []

    def save(self, key: str, state: State, previous: str | None, seconds: float = inf) -> None:
        super().save(key, state, previous, seconds)
        self.seconds.append(time.process_time())
        self.memory.append(resident())


def measure(effort: Effort) -> list[Row]:
    slices, rounds = effort.pick(20, 300, 1000), effort.pick(1, 1, min(effort.rounds, 2))
    ratios: dict[str, list[float]] = {name: [] for name in WAYS}
    growth: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name in [*WAYS][:: -1 if turn % 2 else 1]:
            store = run(slices, WAYS[name])
            early, late = part(store.seconds, 0.1, 0.3), part(store.seconds, 0.8, 1.0)
            ratios[name].append(late / early)
            growth[name].append(store.memory[-1] - store.memory[slices // 10])
    late, setting = "late slices", f"{slices} slices"
    return [
        *(Row(f"{setting}, {n}", late, "early ones", v, goal=RATIO) for n, v in ratios.items()),
        *(
            Row(f"{setting}, {n}", "more memory", values=v, unit=" MB", goal=GROWTH)
            for n, v in growth.items()
        ),
    ]


def run(slices: int, settings: dict[str, Any]) -> Noting:
    """Train through so many slices, and return the store that noted them."""
    taught = "curriculum" in settings
    if taught:
        teacher = {**settings["curriculum"], "share": COLUMNS / slices}
        settings = {**settings, "curriculum": teacher}
    model = {"name": "mlp", "hidden": [16]}
    config = parse_config({"strategy": "er", "model": model, **settings})
    plan = make_plan(config, {"stream": stream(slices, taught)})
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # else a disk is waited for
    with TemporaryDirectory(dir=memory) as folder:
        store = Noting(Path(folder))
        Fold(plan, store, Trackers()).run()
    return store


def stream(slices: int, taught: bool) -> Stream:
    """Return a stream of slices over ten columns; for a teacher the columns alone, whole."""
    columns = [samples(task, slices * TRAIN // COLUMNS + 2 * TEST) for task in range(COLUMNS)]
    test = torch.arange(TEST)
    parts = []
    for i in range(COLUMNS if taught else slices):
        data, task = columns[i % COLUMNS], i % COLUMNS
        first = 2 * TEST + (0 if taught else i // COLUMNS * TRAIN)
        rows = torch.arange(first, len(data) if taught else first + TRAIN)
        scored = (data.select(test), data.select(test + TEST))
        own = scored if taught else tuple(s.emptied() for s in scored)
        parts.append(Experience(f"{i}", (0, 1, 2, 3), task, data.select(rows), *own))
    scored_parts = (
        ()
        if taught
        else tuple(
            Experience(
                f"{t}", (0, 1, 2, 3), t, d.select(test + 2 * TEST), d.emptied(), d.select(test)
            )
            for t, d in enumerate(columns)
        )
    )
    names = ("a", "b", "c", "d")
    return Stream("long", "domain", tuple(parts), names, columns=scored_parts)


def samples(task: int, n: int) -> Samples:
    """Return samples of four classes around means of a column's own."""
    generator = torch.Generator().manual_seed(task)
    y = torch.arange(n) % 4
    means = 2 * torch.randn(4, FEATURES, generator=generator)
    return Samples.of(means[y] + torch.randn(n, FEATURES, generator=generator), y)


def part(seconds: Sequence[float], begin: float, end: float) -> float:
    """Return the median CPU time of the slices between two shares of all."""
    n = len(seconds)
    taken = [after - before for before, after in pairwise(seconds)]
    return median(taken[int(begin * n) : int(end * n)])
