"""Sweeps: what sharing saves, what a second core gives, and what a run costs beyond its training.

All orders of the experiences with experience replay, one epoch, as a sweep that trains common
beginnings once and as one that does not ("unshared"); of the trainings of 120 orders 325/600 = 0.54
remain. Then 200 runs that differ in their seed, by two workers of one core each and by one
(throughput: the seconds of one over those of two); and 200 runs of a strategy that does nothing.
"Plain processes" are two that carry out some of the same runs in memory, against one alone: what
the machine itself gives, whose cores share caches and memory. Wall time from the start of the first
worker to the end, in alternating order; one thread a worker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks import ours
from benchmarks.measure import Effort, Goal, NotMeasured, Row, paired, ratios, wall
from cl_platform import Batch, Strategy
from cl_platform.errors import BadInput, DataError
from sweeps.api import sweep
from sweeps.executor.cluster import connected
from sweeps.executor.driver import Driver

TRIES = 4
TWO = "throughput of two cores"
DIGITS = {"stream": "split-digits"}
TRAINED = {**DIGITS, "epochs": 3}
MNIST = {"stream": {"name": "split-mnist", "samples": 3200, "test_samples": 500}, "batch_size": 64}


class Idle(Strategy):
    """A strategy that learns nothing, in no time."""

    def training_step(self, batch: Batch) -> Tensor:
        return batch.x.new_zeros(())


class Clock:
    """Seconds from the first worker's start to the end."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def of(self, driver: Driver) -> Any:
        def tick(phase: Any) -> None:
            if driver.pool is not None and driver.pool.started():
                self.marks.append(time.perf_counter())

        return tick

    @property
    def seconds(self) -> float:
        return self.marks[-1] - self.marks[0]


def measure(effort: Effort) -> list[Row]:
    with cluster():
        streams = effort.pick([small()], [small()], [DIGITS, MNIST])
        rounds = effort.pick(1, 1, effort.rounds)  # each takes the start of workers beside
        rows = [sharing(base, rounds) for base in streams]
        runs = effort.pick(4, 40, 200)
        return [*rows, *cores(runs, rounds), idle(runs, rounds)]


@contextmanager
def cluster() -> Iterator[None]:
    """Connect to a Ray of this machine, which the sweeps inside share; it ends afterwards.

    Ray gives a node half a minute to start, which is not enough on a busy machine: it is tried a
    few times.

    Raises:
        NotMeasured: Ray does not start.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")  # as nice as the rest
    with ExitStack() as stack:
        for left in range(TRIES - 1, -1, -1):
            try:
                stack.enter_context(connected("local"))
                break
            except BadInput as error:
                if not left:
                    raise NotMeasured(str(error)) from error
        yield


def small() -> dict[str, Any]:
    """Return a configuration with the 24 orders of four experiences."""
    return {"stream": {"name": "split-digits", "classes": list(range(8)), "experiences": 4}}


def sharing(base: dict[str, Any], rounds: int) -> Row:
    """Return the line of all orders of a stream, shared against unshared."""
    axes = {"strategy": ["er"], "curriculum": ["all"]}
    ways = {
        name: partial(timed, {"base": base, "axes": axes, "share": name == "shared"})
        for name in ("unshared", "shared")
    }
    found = paired(ways, rounds, warm_up=False)
    few = base == small()
    return Row(
        f"{'24' if few else '120'} orders, {_named(base)}",
        "shared",
        "unshared",
        ratios(found, "shared", "unshared"),
        "",
        found["shared"],
        None if few else Goal("at most", 0.58),
    )


def cores(runs: int, rounds: int) -> list[Row]:
    """Return the lines of the throughput of two workers over that of one, and of the machine."""
    setting = f"{runs} runs, {_named(DIGITS)}"
    if len(os.sched_getaffinity(0)) < 2:
        return [Row(setting, TWO, "one core", note="one core here")]
    spec = {"base": TRAINED, "axes": {"strategy": ["er"], "seed": {"range": runs}}}
    found = paired({f"{n}": partial(timed, {**spec, "workers": n}) for n in (1, 2)}, rounds, False)
    goal = Goal("at least", 1.8)
    spawned = get_context("spawn")
    with ProcessPoolExecutor(2, spawned) as pool:
        list(pool.map(seconds_of, [1, 1]))  # starts both
        plain = [both_cores(pool, max(1, runs // 10)) for _ in range(rounds)]
    return [
        Row(setting, TWO, "one core", ratios(found, "1", "2"), "", found["2"], goal),
        Row(setting, "throughput of two plain processes", "one alone", plain),
    ]


def both_cores(pool: ProcessPoolExecutor, runs: int) -> float:
    """Return the throughput of two processes over that of one."""
    alone = pool.submit(seconds_of, runs).result()
    return 2 * alone / max(pool.map(seconds_of, [runs, runs]))


def seconds_of(runs: int) -> float:
    """Return the seconds of some runs in memory, of a process with one thread."""
    torch.set_num_threads(1)
    plans = [ours.plan({**TRAINED, "strategy": "er", "seed": seed}) for seed in range(runs)]
    return wall(lambda: [ours.run(plan) for plan in plans])


def idle(runs: int, rounds: int) -> Row:
    """Return the line of what a run costs that does nothing."""
    base = {
        "stream": {"name": "blobs", "samples_per_class": 20},
        "model": {"name": "mlp", "hidden": [16]},
    }
    axes = {"strategy": ["benchmarks.cases.sweeps:Idle"], "seed": {"range": runs}}
    found = [1000 * timed({"base": base, "axes": axes}) / runs for _ in range(rounds)]
    return Row(f"{runs} runs, blobs", "a run that does nothing", values=found, unit=" ms")


def timed(spec: dict[str, Any]) -> float:
    """Return the seconds of a sweep in a folder of its own."""
    clock = Clock()
    with TemporaryDirectory() as out:
        try:
            found = sweep(spec, out, watch=clock.of)
        except DataError as error:
            raise NotMeasured(str(error)) from error
        assert found.complete
        assert not found.failed
    return clock.seconds


def _named(base: dict[str, Any]) -> str:
    stream = base["stream"]
    return str(stream if isinstance(stream, str) else stream["name"])
