"""A sweep from its specification to its results."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.config.labels import duration
from cl_platform.engine.execution import DEFAULT_OUT
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.models.objects import with_names
from cl_platform.report.orders.study import Study, studies
from cl_platform.report.render import write_report
from cl_platform.report.runs import Runs, read_runs
from cl_platform.report.tables import leaderboard
from cl_platform.results.load import flat
from cl_platform.results.references import References, read_references
from cl_platform.storage.files import location
from cl_platform.tracking.notebook import Bar, in_notebook
from sweeps import record, reference_runs
from sweeps.executor import tree
from sweeps.executor.cluster import RayDied, needs
from sweeps.executor.driver import Driver, OnTick, OutOfTime
from sweeps.executor.estimate import estimate
from sweeps.planning import Run, plan_runs, values_of
from sweeps.record import Phase, Tally
from sweeps.scores import affinities_of, scores_of
from sweeps.space import fill, randoms, templates
from sweeps.spec import ORDER_METHODS, SweepSpec, Tune, parse_spec, read_spec
from sweeps.tuning import choice, policy_search
from sweeps.tuning.choice import Choice
from sweeps.tuning.order_search import search_orders
from sweeps.wandb_summary import log_summary

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Preview:
    """The work of a sweep that has not started.

    Args:
        axes: the number of values of each, or how they are drawn.
        values: of each axis, as text in the order of the runs; none of those yet to be drawn.
        seconds: estimated by a short trial on this machine; None if it lacks the device.
        then: what follows tuning.
        lanes: how many of the runs one worker trains side by side with others, and with how many.
        no_lanes: why others are trained one by one, if lanes are asked for.
    """

    name: str
    path: Path
    axes: dict[str, str]
    tally: Tally
    resources: dict[str, float]
    workers: int
    seconds: float | None
    then: str
    lanes: tuple[int, int] = (0, 1)
    no_lanes: str = ""
    values: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "tally": vars(self.tally)}


@dataclass(frozen=True, eq=False)
class Sweep:
    """The results of a sweep.

    Args:
        path: its folder.
        phases: the runs, one phase, or tuning and then the final runs; references stand before
            the runs they belong to, so that the last phase is the reported one.
        chosen: the points that tuning chose.
        seconds: duration of this call.
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
        """The number of failed runs in all phases."""
        return sum(phase.tally.failed for phase in self.phases)

    @property
    def complete(self) -> bool:
        """True if every run has ended, with a result or with its error on record."""
        return self.stopped is None and all(
            phase.tally.done + phase.tally.failed == phase.tally.runs for phase in self.phases
        )

    def to_json(self) -> dict[str, Any]:
        """Return the phases with their runs, the chosen points, and the folder of the rest."""
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
        """Return one row per run of the last phase that has ended: its axes as ``axis.NAME``,
        metrics, costs and settings as in :func:`cl_platform.load_results`, and scores of its order
        as ``score.CURRICULUM``. A run that failed has a row as well, with its axes and settings,
        and in the column ``error``, which is there only then, what it said."""
        import pandas as pd

        frame = self.runs.frame.copy()
        errors = self.phases[-1].errors if self.phases else {}
        failed = [
            {
                "run_id": run.run_id,
                **{f"axis.{axis}": text for axis, text in run.point.items()},
                **flat(run.config.model_dump(mode="json")),
                "error": errors[run.run_id],
            }
            for run in (self.phases[-1].runs if errors else ())
            if run.run_id in errors
        ]
        if not failed:
            return frame
        frame = pd.concat([frame, pd.DataFrame(failed)], ignore_index=True)
        return frame.assign(error=frame["error"].fillna(""))

    def __repr__(self) -> str:
        return f"{self.spec.name}: {self._about()}; {self.path}"

    def _about(self) -> str:
        tally = self.phases[-1].tally
        failed = f", {tally.failed} failed" if tally.failed else ""
        ended = self.stopped or "ended"
        return f"{tally.done} of {tally.runs} runs{failed}, {ended} after {duration(self.seconds)}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what was done, and the leaderboard."""
        board = leaderboard(self.runs) if len(self.runs.frame) else ""
        about = escape(f"{self._about()}; {self.path}")
        return (
            f'<div style="max-width:100%"><b>{escape(self.spec.name)}</b> '
            f'<span style="opacity:.7">{about}</span>{board}</div>'
        )

    @cached_property
    def runs(self) -> Runs:
        """The contents of its folder."""
        return read_runs(self.path)

    @property
    def references(self) -> References:
        """The references, by settings; see :mod:`cl_platform.results.references`."""
        return read_references(self.path)

    def studies(self) -> list[Study]:
        """Compare the orders of each stream; see :mod:`cl_platform.report.orders.study`."""
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
    """Carry out a sweep, or the rest of it.

    Args:
        spec: a specification, its mapping, or the file that holds it. In a mapping, base and axes
            may hold streams, strategies, curricula and models as objects or classes, as for
            :func:`cl_platform.run`; what is defined in a script or a function travels to workers.
        out: its folder, ``clp-results/NAME`` by default; with several machines a folder that they
            share, or an address such as ``s3://bucket/folder``.
        address: of Ray: ``local`` starts one here, ``auto`` finds one on this machine, else
            ``HOST:PORT`` of a head node.
        retry_failed: whether to try runs again that failed before.
        watch: takes the driver and returns a function of the phase, called about twice a second.

    Raises:
        ConfigError: the specification or any of its runs is faulty; nothing was started.
        BadInput: Ray cannot be reached, or no node has the resources of a run.
        KeyboardInterrupt: workers are stopped and the record is written; call again to go on.
    """
    plan = _plan(spec, out)
    spec, folder = plan.spec, plan.folder
    began = time.monotonic()
    hours = spec.budget.hours
    driver = Driver(
        spec,
        folder,
        plan.planner,
        address,
        retry=retry_failed,
        deadline=began + 3600 * hours if hours is not None else float("inf"),
    )
    bar = Bar()
    if watch is not None:
        driver.watch = watch(driver)
    elif in_notebook():
        # Ray asks for widgets, which a bar of our own does not need.
        logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "IProgress not found")
        driver.watch = lambda phase: _show(bar, phase)
    running = _Running(plan, driver)
    status, stopped = "interrupted", None
    try:
        with driver:
            running.carry_out()
        status = "done"
    except OutOfTime as error:
        status = stopped = str(error)
    except RayDied:
        raise
    except ClpError as error:
        status = str(error)
        raise
    finally:
        bar.close()
        seconds = time.monotonic() - began
        found = reference_runs.collect(spec, running.phases, plan.planner, folder)
        running.write(status, references=found, seconds=seconds)
    done = Sweep(spec, folder, running.phases, running.chosen, seconds, stopped)
    write_report(done.runs)
    frame = done.runs.frame.copy()
    if not frame.empty and driver.tracking != "off":
        log_summary(frame, driver.tracking, folder, spec.name)
    return done


def _show(bar: Bar, phase: Phase) -> None:
    """Show the progress of a phase in a notebook."""
    tally = phase.tally
    done = tally.known + tally.trained
    text = f"{tally.done} of {tally.runs} runs, {done} of {tally.distinct} experiences"
    text = text if phase.name == "runs" else f"{phase.name}: {text}"
    bar.show(min(1.0, done / max(1, tally.distinct)), text)


class _Running:
    """A sweep that is being carried out; `sweep.json` is written as each phase begins."""

    def __init__(self, plan: _Plan, driver: Driver) -> None:
        self.plan, self.driver = plan, driver
        self.phases: list[Phase] = []
        self.chosen: list[Choice] = []
        self.scores = scores_of(plan.spec.scored_by, plan.runs, plan.planner)
        self.affinities = affinities_of(plan.spec.scored_by, plan.runs, plan.planner)

    def carry_out(self) -> None:
        """Train the runs, or tune and train the final runs; then the references."""
        spec, references = self.plan.spec, self.plan.references
        if spec.tune is None:
            self.driver.carry_out(self._begin(Phase("runs", self.plan.runs)))
        else:
            self._tune(spec.tune)
            if spec.references:
                final = self.phases[-1].runs
                references = reference_runs.reference_runs(spec, final, self.plan.planner)
        if spec.references:  # after the runs, whose states they share
            phase = reference_runs.reference_phase(references, self.plan.planner, self.plan.folder)
            self.driver.carry_out(self._begin(phase, before=1))

    def write(self, status: str, **end: Any) -> None:
        """Write `sweep.json`."""
        spec, folder = self.plan.spec, self.plan.folder
        shown = {"chosen": self.chosen, "scores": self.scores, "affinities": self.affinities, **end}
        record.write_sweep(folder, spec, self.phases, status, **shown)

    def _begin(self, phase: Phase, before: int = 0) -> Phase:
        """Add a phase in front of the last `before` ones."""
        self.phases.insert(len(self.phases) - before, phase)
        self.write("running")
        return phase

    def _tune(self, tune: Tune) -> None:
        spec, plan, driver = self.plan.spec, self.plan, self.driver
        phase = self._begin(Phase("tune", [] if spec.adaptive else plan.runs))
        if tune.method in ORDER_METHODS:
            self.chosen = search_orders(driver, phase)
        elif spec.adaptive:
            from sweeps.tuning.ray_tune import search  # imports Ray Tune, in seconds

            self.chosen = search(driver, phase)
        elif tune.method == "policy":
            driver.carry_out(phase)
            self.chosen = policy_search.learn(spec, phase, plan.folder)
        else:
            driver.carry_out(phase)
            self.chosen = choice.choose(tune, phase, plan.folder)
        runs = phase.runs
        if spec.final is not None:
            runs = choice.final_runs(spec.final, self.chosen, plan.runs, plan.planner)
        self.scores = scores_of(spec.scored_by, runs, plan.planner)
        if spec.final is not None:
            driver.carry_out(self._begin(Phase("final", runs)))


def preview(
    spec: SweepSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    address: str = "local",
) -> Preview:
    """Return what :func:`sweep` would do; nothing is written, and no Ray is started.

    Raises:
        ConfigError, BadInput: see :func:`sweep`.
    """
    plan = _plan(spec, out)
    spec = plan.spec
    scores_of(spec.scored_by, plan.runs, plan.planner)  # for its faults
    driver = Driver(spec, plan.folder, plan.planner, address)
    phase = reference_runs.whole_phase(plan.runs, plan.references, plan.planner, plan.folder)
    roots = driver.survey(phase)
    left = [run for root in roots for run in root.all_runs()]
    joined = [segment for root in roots for segment in root.walk() if segment.lanes]
    seconds = estimate(left, plan.planner, driver.trained_before)
    if spec.adaptive:  # the runs are examples
        if seconds is not None:
            seconds *= plan.tally.distinct / max(1, phase.tally.distinct)
        phase.tally = plan.tally
    workers = driver.n_workers(phase.runs, phase.tally.runs)
    return Preview(
        name=spec.name,
        path=plan.folder,
        axes={key: _extent(spec, plan.runs, key) for key in spec.axes},
        tally=phase.tally,
        resources=needs(spec.resources),
        workers=workers,
        seconds=None if seconds is None else seconds / max(1, workers),
        then=_then(spec),
        lanes=(
            sum(len(segment.runs) for segment in joined),
            max((len(segment.lanes) for segment in joined), default=1),
        ),
        no_lanes=driver.no_lanes,
        values={} if spec.adaptive else values_of(plan.runs),
    )


def _then(spec: SweepSpec) -> str:
    """Return what follows tuning, as text."""
    if spec.final is None:
        return ""
    seeds = spec.final.seeds if isinstance(spec.final.seeds, int) else len(spec.final.seeds)
    beside = f", and {' and '.join(spec.references)} for reference" if spec.references else ""
    return f"the best point of each group with {seeds} final seeds{beside}"


def _extent(spec: SweepSpec, runs: Sequence[Run], key: str) -> str:
    """Return the number of values of an axis, or how they are drawn: ``3``, ``loguniform``."""
    forms = {r.form for point in templates(spec) for r in randoms(point[key]).values()}
    return "/".join(sorted(forms)) or str(len({run.point.get(key) for run in runs}))


@dataclass(frozen=True, eq=False)
class _Plan:
    """A checked specification with its runs.

    Args:
        runs: of the first phase; for an adaptive method one example per point of the grid.
        references: of these runs; none while tuning, since final runs have their own.
        tally: all work at most, whatever is done already.
    """

    spec: SweepSpec
    folder: Path
    planner: Planner
    runs: list[Run]
    references: list[Run]
    tally: Tally


def _plan(spec: SweepSpec | Mapping[str, Any] | str | Path, out: str | Path | None) -> _Plan:
    spec = as_spec(spec)
    folder = location(out) if out is not None else Path(DEFAULT_OUT) / spec.name
    planner = Planner(check_device=not spec.resources.gpus)
    examples = [fill(point, spec.seed, 0) for point in templates(spec)] if spec.adaptive else None
    runs = plan_runs(spec, planner, examples)
    if spec.tune is not None:
        choice.check_validation(runs, planner)
        if spec.tune.method == "policy":
            policy_search.check(spec, runs)
    references = reference_runs.reference_runs(spec, runs, planner)
    if spec.tune is not None:  # they were planned for their faults only
        references = []
    if spec.tune is not None and spec.adaptive:
        tally = choice.upper_bound(spec.tune, choice.groups(spec, planner))
    else:
        counted = [*runs, *references]
        experiences = sum(run.upto for run in counted)
        distinct = len(tree.states(counted)) if spec.share else experiences
        tally = Tally(len(counted), experiences=experiences, distinct=distinct)
    for name, number in {"runs": tally.runs, "experiences": tally.distinct}.items():
        limit = getattr(spec.budget, name)
        if limit is not None and number > limit:
            raise BadInput(
                f"the sweep has {number} {name}, above budget.{name}={limit}; raise it or give "
                "fewer values"
            )
    folder = folder.absolute()  # workers have a working directory of their own
    return _Plan(spec, folder, planner, runs, references, tally)


def as_spec(spec: SweepSpec | Mapping[str, Any] | str | Path) -> SweepSpec:
    """Return a specification given in any of its forms; a mapping may hold objects and classes."""
    if isinstance(spec, SweepSpec):
        return spec
    if not isinstance(spec, Mapping):
        return parse_spec(read_spec(spec))
    named = dict(spec)
    if isinstance(base := spec.get("base"), Mapping):
        named["base"] = with_names(base)
    if isinstance(axes := spec.get("axes"), Mapping):
        named["axes"] = {
            key: [with_names({key: v})[key] for v in values] if isinstance(values, list) else values
            for key, values in axes.items()
        }
    return parse_spec(named)
