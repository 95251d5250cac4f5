"""Affinities as they are measured: every experience is learned before every other one.

T first steps and T (T - 1) second steps are one sweep over the beginnings of runs, whose states are
looked up before they are trained, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from cl_platform import Affinity, Stream
from cl_platform.config.run_config import RunConfig, parse_config, with_flags
from cl_platform.core.digests import digest
from cl_platform.core.matrix import OWN_MASK, Mask
from cl_platform.engine.execution import advance
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, RunFailed
from cl_platform.storage.files import location
from cl_platform.storage.state_store import StateStore
from sweeps.planning import Run
from sweeps.record import Phase


class Pairwise(Affinity):
    """Accuracy on validation data of j learned after i, less that of j learned alone.

    Args:
        base: settings of the runs, as of ``clp run``: strategy, epochs, model, ...
        seeds: number of runs of each pair, which are averaged; from ``base.seed`` on.
        mask: classes that compete when j is scored: those ``seen``, those of its ``task`` or
            ``all``; None takes what the stream's scenario asks for.
        workers: processes on Ray; 0 trains in this one.
        out: folder of records and states; what is there is not trained again. None keeps nothing.
    """

    base: Mapping[str, Any] | None = None
    seeds: PositiveInt = 1
    mask: Mask | None = None
    workers: NonNegativeInt = 0
    out: str | None = None

    def reads(self, stream: Stream) -> Any:
        return [run.keys[:3] for run, _ in self._planned(stream, Planner(check_device=False))]

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        planner, n = Planner(), len(stream)
        pairs = self._planned(stream, planner)
        with _folder(self.out) as out:
            if pairs:
                self._train([run for run, _ in pairs], planner, out)
            store = StateStore(out / "states")
            alone, after = np.zeros((self.seeds, n)), np.zeros((self.seeds, n, n))
            for _, plan in pairs:
                (i, j), seed = plan.order[:2], plan.config.seed - pairs[0][1].config.seed
                alone[seed, i] = self._accuracy(store, plan, 1)
                after[seed, i, j] = self._accuracy(store, plan, 2)
        found = (after - alone[:, None]).mean(0)
        np.fill_diagonal(found, 0)
        return np.asarray(found)

    def _planned(self, stream: Stream, planner: Planner) -> list[tuple[Run, Plan]]:
        """Plan a run for each pair and seed that ends after two experiences."""
        config = self._config(stream)
        planner.adopt(config, _validated(stream))
        n = len(stream)
        found = []
        for seed in range(config.seed, config.seed + self.seeds):
            for i in range(n):
                for j in (j for j in range(n) if j != i):
                    order = [i, j, *(k for k in range(n) if k not in (i, j))]
                    section = {"name": "explicit", "level": "experiences", "order": order}
                    own = config.model_copy(update={"curriculum": section, "seed": seed})
                    found.append(_run_of(planner, own))
        return found

    def _config(self, stream: Stream) -> RunConfig:
        base = self.base or {}
        if fixed := {"stream", "scenario", "curriculum"} & {*base}:
            raise BadInput(
                f"affinity.base.{min(fixed)}: the stream is that whose affinities are asked for, "
                "in all orders of two; leave it out"
            )
        data = digest([e.identity for e in stream.experiences])
        section = {"name": f"{__name__}:given", "data": data}
        return parse_config({**with_flags({}, base), "stream": section})

    def _train(self, runs: list[Run], planner: Planner, out: Path) -> None:
        if self.workers:
            return self._on_ray(runs, planner, out)
        branches = {run.keys[1] for run in runs}
        store = StateStore(out / "states", "branches", branches=branches, predictions="none")
        for run in runs:
            advance(planner(run.config, run.order), store, 2)

    def _on_ray(self, runs: list[Run], planner: Planner, out: Path) -> None:
        from sweeps.executor.driver import Driver  # imports Ray
        from sweeps.spec import SweepSpec

        config, stream = runs[0].config, planner.stream(runs[0].config)
        if config.device != "cpu" or any(e.train.mapped for e in stream.experiences):
            raise BadInput(
                f"affinity.workers={self.workers} with device={config.device} or data in mapped "
                "files: give workers=0"
            )
        phase = Phase("pairs", runs)
        with Driver(
            SweepSpec(name="pairwise", workers=self.workers, predictions="none"), out, planner
        ) as driver:
            driver.carry_out(phase)
        for error in phase.errors.values():
            raise RunFailed(error)

    def _accuracy(self, store: StateStore, plan: Plan, k: int) -> float:
        """Return the accuracy after k experiences on the k-th one."""
        identities = [e.identity for e in plan.stream.experiences]
        mask = self.mask or OWN_MASK[plan.stream.scenario]
        return store.record(plan.keys[k], identities).rows["validation"][mask][identities[k - 1]]


def given(data: str) -> Stream:
    """Stand for the stream that an affinity is asked of, which its planner and workers have."""
    raise BadInput("this stream is given by an affinity and cannot be made by its name")


def _validated(stream: Stream) -> Stream:
    """Return the stream with a row of validation data as test data, which nobody looks at.

    Raises:
        BadInput: it has none, or is open.
    """
    if stream.open:
        raise BadInput(
            f"affinity pairwise: stream {stream.name!r:.60} is open, so that its classes have "
            "other numbers in every order; leave stream.open out"
        )
    if not all(len(e.validation) for e in stream.experiences):
        raise BadInput(
            f"affinity pairwise: stream {stream.name!r:.60} has no validation data, and test data "
            "must not be used; give stream.validation, say 0.1"
        )
    if stream.columns:
        raise BadInput(
            f"affinity pairwise: stream {stream.name!r:.60} is scored on other experiences than it "
            "trains on; give the stream that it is made of"
        )
    first = torch.tensor([0])
    parts = tuple(replace(e, test=e.validation.select(first)) for e in stream.experiences)
    return replace(stream, experiences=parts)


def _run_of(planner: Planner, config: RunConfig) -> tuple[Run, Plan]:
    plan = planner(config)
    if len(plan.steps) < len(plan.stream):
        raise BadInput(
            f"affinity pairwise: strategy {config.strategy['name']!r} trains on the whole stream "
            "at once; give another affinity.base.strategy"
        )
    whole = len(plan.stream) == 2
    return Run(plan.run_id, {}, config, plan.order, plan.keys, 2, whole), plan


@contextmanager
def _folder(out: str | None) -> Iterator[Path]:
    """Give a folder: the one that is named, or one that is removed afterwards."""
    if out is not None:
        yield location(out).absolute()
    else:
        with TemporaryDirectory(prefix="clp-pairwise-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
