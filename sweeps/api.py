"""A sweep from its specification to its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.engine.execution import DEFAULT_OUT
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.report.orders.study import Study, studies
from cl_platform.report.render import write_report
from cl_platform.report.runs import Runs, read_runs
from cl_platform.results.references import References, read_references
from cl_platform.storage.files import location
from sweeps import record
from sweeps import reference_runs as references
from sweeps.executor import tree
from sweeps.executor.cluster import needs
from sweeps.executor.driver import Driver, OnTick, Stopped
from sweeps.executor.estimate import estimate
from sweeps.planning import Run, plan_runs
from sweeps.record import Phase, Tally
from sweeps.scores import scores_of
from sweeps.space import fill, randoms, templates
from sweeps.spec import ORDER_METHODS, SweepSpec, parse_spec, read_spec
from sweeps.tuning import choice as tuning
from sweeps.tuning.choice import Choice
from sweeps.tuning.order_search import search_orders
from sweeps.wandb_summary import log_summary

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Preview:
    """What a sweep would do.

    Args:
        axes: how many values each has, or how it is drawn.
        seconds: about how long, by a short trial on this machine; None if it cannot be tried here.
        then: what follows tuning.
    """

    name: str
    path: Path
    axes: dict[str, str]
    tally: Tally
    resources: dict[str, float]
    workers: int
    seconds: float | None
    then: str

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "tally": vars(self.tally)}


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Args:
        path: its folder.
        phases: the runs, one phase, or tuning and then the final runs; references stand before
            the runs they belong to, so that the last phase is what is reported.
        chosen: the points that tuning chose.
        seconds: how long it took this time.
        stopped: why it ended early, if it did.
    """

    spec: SweepSpec
    path: Path
    phases: Sequence[Phase]
    chosen: Sequence[Choice]
    seconds: float
    stopped: str | None = None

    @property
    def failed(self) -> int:
        return sum(phase.tally.failed for phase in self.phases)

    @property
    def complete(self) -> bool:
        """Whether every run has ended, with a result or with its error on record."""
        return self.stopped is None and all(
            phase.tally.done + phase.tally.failed == phase.tally.runs for phase in self.phases
        )

    def to_json(self) -> dict[str, Any]:
        """The phases with their runs, what was chosen, and where the rest is."""
        return {
            "name": self.spec.name,
            "path": str(self.path),
            "complete": self.complete,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "chosen": [choice.to_json() for choice in self.chosen],
            "phases": [phase.to_json() for phase in self.phases],
        }

    def results(self) -> pd.DataFrame:
        """One row per run of the last phase that has ended: its axes as ``axis.NAME``, metrics,
        costs and settings as in :func:`cl_platform.load_results`, and scores of its order as
        ``score.CURRICULUM``."""
        return self.runs.frame.copy()

    @cached_property
    def runs(self) -> Runs:
        """What it left in its folder."""
        return read_runs(self.path)

    @property
    def references(self) -> References:
        """What it found of them, by settings; see :mod:`cl_platform.results.references`."""
        return read_references(self.path)

    def studies(self) -> list[Study]:
        """What the orders of each stream did; see :mod:`cl_platform.report.orders.study`."""
        return self._studies

    @cached_property
    def _studies(self) -> list[Study]:
        return studies(self.runs.frame)


def sweep(
    spec: SweepSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    address: str = "local",
    retry_failed: bool = False,
    watch: Callable[[Driver], OnTick] | None = None,
) -> Sweep:
    """Carry out a sweep, or what is left of it.

    Args:
        spec: a specification, its mapping, or the file that holds it.
        out: its folder; ``clp-results/NAME`` unless given. A shared folder where there are several
            machines, or an address such as ``s3://bucket/folder``.
        address: of Ray: ``local`` starts one here, ``auto`` finds one on this machine, else
            ``HOST:PORT`` of a head node.
        retry_failed: try runs again that failed before.
        watch: given the driver, returns what is called about twice a second with the phase.

    Raises:
        ConfigError: the specification or any of its runs is faulty; nothing has been started.
        BadInput: Ray cannot be reached, or no node has the resources of a run.
        KeyboardInterrupt: workers are stopped and the record is written; call again to go on.
    """
    spec, folder, planner, runs = _planned(spec, out)
    scores = scores_of(spec.scored_by, runs, planner)
    began = time.monotonic()
    hours = spec.budget.hours
    driver = Driver(
        spec,
        folder,
        planner,
        address,
        retry=retry_failed,
        deadline=began + 3600 * hours if hours is not None else float("inf"),
    )
    if watch is not None:
        driver.watch = watch(driver)
    phases = [Phase("runs" if spec.tune is None else "tune", [] if spec.adaptive else runs)]
    chosen: list[Choice] = []
    status, stopped = "interrupted", None
    try:
        with driver:
            record.write_sweep(folder, spec, phases, "running", scores=scores)
            if spec.adaptive:
                chosen += _searched(driver, phases[0])
            else:
                driver.carry_out(phases[0])
                if spec.tune is not None:
                    chosen += tuning.choose(spec.tune, phases[0], folder)
            if spec.tune is not None:
                if spec.final is not None:
                    final = tuning.final_runs(spec.final, chosen, runs, planner)
                    phases.append(Phase("final", final))
                scores = scores_of(spec.scored_by, phases[-1].runs, planner)
            if len(phases) > 1:
                record.write_sweep(folder, spec, phases, "running", chosen=chosen, scores=scores)
                driver.carry_out(phases[1])
            if spec.references:  # after the runs, whose states they share
                wanted = references.reference_phase(spec, phases[-1].runs, planner, folder)
                phases.insert(-1, wanted)
                record.write_sweep(folder, spec, phases, "running", chosen=chosen, scores=scores)
                driver.carry_out(wanted)
        status = "done"
    except Stopped as error:
        status = stopped = str(error)
    except ClpError as error:
        status = str(error)
        raise
    finally:
        seconds = time.monotonic() - began
        record.write_sweep(
            folder,
            spec,
            phases,
            status,
            chosen=chosen,
            scores=scores,
            references=references.collect(spec, phases, planner, folder),
            seconds=seconds,
        )
    found = Sweep(spec, folder, phases, chosen, seconds, stopped)
    write_report(found.runs)
    if spec.wandb.mode != "off":
        log_summary(found.results(), spec.wandb.mode, folder, spec.name)
    return found


def _searched(driver: Driver, phase: Phase) -> list[Choice]:
    assert driver.spec.tune is not None
    if driver.spec.tune.method in ORDER_METHODS:
        return search_orders(driver, phase)
    from sweeps.tuning.ray_tune import search  # imports Ray Tune, in seconds

    return search(driver, phase)


def preview(
    spec: SweepSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    address: str = "local",
) -> Preview:
    """What :func:`sweep` would do; nothing is written, and no Ray is started.

    Raises:
        ConfigError, BadInput: see :func:`sweep`.
    """
    spec, folder, planner, runs = _planned(spec, out)
    scores_of(spec.scored_by, runs, planner)  # faults are told now
    driver = Driver(spec, folder, planner, address)
    phase = references.whole_plan(spec, runs, planner, folder)
    left = [run for root in driver.survey(phase) for run in root.all_runs()]
    seconds = estimate(left, planner, driver.known)
    if spec.adaptive:  # the runs were examples
        at_most = _tally(spec, planner, runs)
        if seconds is not None:
            seconds *= at_most.distinct / max(1, phase.tally.distinct)
        phase.tally = at_most
    workers = driver.workers(phase.runs, phase.tally.runs)
    final = spec.final.seeds if spec.final is not None else 0
    seeds = final if isinstance(final, int) else len(final)
    return Preview(
        name=spec.name,
        path=folder,
        axes={key: _extent(spec, runs, key) for key in spec.axes},
        tally=phase.tally,
        resources=needs(spec.resources),
        workers=workers,
        seconds=None if seconds is None else seconds / max(1, workers),
        then=_then(spec, seeds),
    )


def _then(spec: SweepSpec, seeds: int) -> str:
    """What follows tuning."""
    if not seeds:
        return ""
    beside = f", and {' and '.join(spec.references)} for reference" if spec.references else ""
    return f"the best point of each group with {seeds} final seeds{beside}"


def _extent(spec: SweepSpec, runs: Sequence[Run], key: str) -> str:
    """``3`` values, or ``loguniform``."""
    forms = {r.form for point in templates(spec) for r in randoms(point[key]).values()}
    return "/".join(sorted(forms)) or str(len({run.point.get(key) for run in runs}))


def _planned(
    spec: SweepSpec | Mapping[str, Any] | str | Path, out: str | Path | None
) -> tuple[SweepSpec, Path, Planner, list[Run]]:
    """A specification with its folder and its runs, all of it checked.

    An adaptive method makes its own; here are examples of them, one per point of the grid.
    """
    spec = as_spec(spec)
    folder = location(out) if out is not None else Path(DEFAULT_OUT) / spec.name
    planner = Planner(check_device=not spec.resources.gpus)
    examples = [fill(point, spec.seed, 0) for point in templates(spec)] if spec.adaptive else None
    runs = plan_runs(spec, planner, examples)
    if spec.tune is not None:
        tuning.check_validation(runs, planner)
    beside = references.reference_runs(spec, runs, planner)  # their faults are told now
    check_budget(spec, _tally(spec, planner, runs if spec.tune is not None else [*runs, *beside]))
    return spec, folder.absolute(), planner, runs  # workers have a working directory of their own


def as_spec(spec: SweepSpec | Mapping[str, Any] | str | Path) -> SweepSpec:
    """A specification from any of the forms it is given in."""
    if isinstance(spec, SweepSpec):
        return spec
    return parse_spec(spec if isinstance(spec, Mapping) else read_spec(spec))


def check_budget(spec: SweepSpec, tally: Tally) -> None:
    """Whether the plan is within its budget.

    Raises:
        BadInput: it is not.
    """
    for name, number in {"runs": tally.runs, "experiences": tally.distinct}.items():
        limit = getattr(spec.budget, name)
        if limit is not None and number > limit:
            raise BadInput(
                f"the sweep has {number} {name}, above budget.{name}={limit}; raise it or give "
                "fewer values"
            )


def _tally(spec: SweepSpec, planner: Planner, runs: Sequence[Run]) -> Tally:
    """How much there is to do, at most, whatever is there already."""
    if spec.tune is not None and spec.adaptive:
        return tuning.planned(spec.tune, tuning.groups(spec, planner))
    experiences = sum(run.upto for run in runs)
    distinct = len(tree.states(runs)) if spec.share else experiences
    return Tally(len(runs), experiences=experiences, distinct=distinct)
