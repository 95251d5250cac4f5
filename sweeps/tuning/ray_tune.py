"""Adaptive search with Ray Tune: trials report after each experience and may be stopped early.

Every state lies in the sweep's store: a search that is started again trains nothing twice.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher

from cl_platform.core.digests import digest
from cl_platform.core.rng import seed_for
from cl_platform.engine.execution import advance
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.storage.files import discard
from cl_platform.storage.state_store import StateStore
from sweeps.executor.cluster import needs
from sweeps.executor.driver import Driver, own_strategies
from sweeps.executor.worker import check_resuming, fetch, set_up_process, shared_streams
from sweeps.planning import config_of
from sweeps.record import Phase
from sweeps.space import Random
from sweeps.spec import SweepSpec, Tune
from sweeps.tuning.choice import (
    TEMPLATE,
    Choice,
    Group,
    groups,
    labels,
    point_of,
    random_values,
    upper_bound,
)

FAILED = -1e9  # the signed objective of a trial that failed: schedulers cannot take nan


@dataclass
class Trial:
    """One trial and its reports.

    Args:
        values: of what is random, by dotted key.
        objectives: after each experience.
        error: of a trial that failed.
    """

    values: dict[str, Any]
    objectives: list[float] = field(default_factory=list)
    error: str | None = None


def search(driver: Driver, phase: Phase) -> list[Choice]:
    """Search in each group and record all trials in the phase.

    Raises:
        ConfigError: a point is faulty.
        ClpError: every trial of a group failed, or a strategy cannot share states.
        OutOfTime: the time of the budget is over.
        KeyboardInterrupt: trained states stay in the store.
    """
    assert driver.spec.tune is not None
    found = groups(driver.spec, driver.planner)
    phase.tally = upper_bound(driver.spec.tune, found)
    configs = []
    for group in found:
        drawn = [config_of(driver.spec, point_of(group, d)) for d in _draws(driver.spec, group)]
        strategies = {config.strategy["name"]: config.strategy for config in drawn}
        for strategy in filter(own_strategies, strategies.values()):
            check_resuming(strategy)
        configs.append(drawn[0])
    driver.connect(configs)
    streams = shared_streams(configs, driver.planner)
    chosen = []
    for group in found:
        chosen.append(_TuneSearch(driver, group, phase, streams).run())
        driver.check_time()
    return chosen


class _TuneSearch:
    """The search of one group."""

    def __init__(
        self, driver: Driver, group: Group, phase: Phase, streams: Mapping[str, Any]
    ) -> None:
        assert driver.spec.tune is not None
        self.driver, self.group, self.phase, self.streams = driver, group, phase, streams
        self.spec, self.tune, self.out = driver.spec, driver.spec.tune, driver.out
        self.sign = 1 if self.tune.mode == "max" else -1
        self.trials: dict[str, Trial] = {}

    def run(self) -> Choice:
        """Search and return the best point."""
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # five files a trial
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would end as if all were done
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # plugins may be named by relative paths
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        scratch = self.out / "tune"
        given = ray.put((self.spec, self.group, self.out, self.streams))
        trainable = tune.with_parameters(_trainable(), given=[given])
        left = self.driver.deadline - time.monotonic()
        try:
            Tuner(
                tune.with_resources(trainable, needs(self.spec.resources)),
                param_space=self._space() if self.tune.method != "optuna" else {},
                tune_config=TuneConfig(
                    metric="objective",
                    mode="max",
                    scheduler=self._scheduler(),
                    search_alg=self._searcher(),
                    num_samples=self.tune.trials,
                    max_concurrent_trials=self.spec.workers or 0,
                    reuse_actors=True,
                    time_budget_s=None if left == float("inf") else max(1.0, left),
                ),
                run_config=RunConfig(
                    storage_path=str(scratch),
                    name=digest(self.group.names)[:12],
                    verbose=0,
                    callbacks=[_Callback(self)],
                    failure_config=FailureConfig(max_failures=2),
                ),
            ).fit()
        finally:
            discard(scratch)  # Tune's own records; ours are in `sweep.json` and the store
            self.phase.trials += [
                {"group": self.group.names, "point": self._named(trial), **vars(trial)}
                for trial in self.trials.values()
            ]
        return self._best()

    def add_report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record a report of a trial; one whose process was lost reports again from the start."""
        trial = self.trials.setdefault(trial_id, Trial(result["values"]))
        trial.error = result["error"]
        reported = len(trial.objectives)
        objectives = [] if trial.error else [self.sign * result["objective"]]
        trial.objectives[result["experience"] - 1 :] = objectives
        self.phase.tally.trained += max(0, len(trial.objectives) - reported) * len(self.group.seeds)
        self.phase.tally.failed = sum(t.error is not None for t in self.trials.values())
        self.driver.watch(self.phase)

    def end_trial(self, trial_id: str) -> None:
        """Count a trial that has ended without an error."""
        self.phase.tally.done += trial_id in self.trials and self.trials[trial_id].error is None

    def _best(self) -> Choice:
        sound = [t for t in self.trials.values() if t.error is None and t.objectives]
        if not sound:
            errors = [t.error for t in self.trials.values() if t.error]
            raise ClpError(
                f"tune: every trial for {' '.join(self.group.names.values())} failed, the first "
                f"one: {errors[0] if errors else 'no report'}"
            )
        best = reduce(self._better, sound)
        point = point_of(self.group, best.values)
        config = config_of(self.spec, {**point, "seed": self.group.seeds[0]})
        return Choice(
            self.group.names, self._named(best), best.objectives[-1], len(self.group.seeds), config
        )

    def _named(self, trial: Trial) -> dict[str, str]:
        """Return the values of a trial's axes but the seed, as text."""
        point = labels(point_of(self.group, trial.values))
        return {key: text for key, text in point.items() if key != "seed"}

    def _better(self, one: Trial, other: Trial) -> Trial:
        """Compare after the last experience that both have learned; of equals take the longer."""
        shared = min(len(one.objectives), len(other.objectives)) - 1
        gain = self.sign * (other.objectives[shared] - one.objectives[shared])
        longer = len(other.objectives) > len(one.objectives)
        return other if gain > 0 or (gain == 0 and longer) else one

    def _space(self) -> dict[str, Any]:
        """Return the parameters of a trial as Tune's distributions."""
        space = {key: _domain(r) for key, r in random_values(self.group).items()}
        if len(self.group.grid) > 1:
            space[TEMPLATE] = tune.choice(list(range(len(self.group.grid))))
        return space

    def _searcher(self) -> Searcher | BasicVariantGenerator:
        if self.tune.method != "optuna":  # our own draws: they are the same next time
            return BasicVariantGenerator(points_to_evaluate=_draws(self.spec, self.group))
        try:
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sampler = optuna.samplers.TPESampler(seed=self.spec.seed)
            return OptunaSearch(self._space(), metric="objective", mode="max", sampler=sampler)
        except (ImportError, AssertionError) as error:
            raise BadInput("tune.method=optuna needs optuna: install the extra `sweeps`") from error

    def _scheduler(self) -> TrialScheduler:
        if self.tune.method != "asha":
            return FIFOScheduler()
        end = self.group.experiences
        grace = min(self.tune.grace, end)
        return AsyncHyperBandScheduler("experience", max_t=end, grace_period=grace)


class _Callback(tune.Callback):
    """Passes the reports of trials on to the search."""

    def __init__(self, search: _TuneSearch) -> None:
        self.search = search

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its callbacks to a file; ours belongs to this process

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        self.search.add_report(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.search.end_trial(trial.trial_id)


def _draws(spec: SweepSpec, group: Group) -> list[dict[str, Any]]:
    """Draw the values of each trial; grid points take turns."""
    assert spec.tune is not None
    found = []
    for i in range(spec.tune.trials):
        values = {
            key: r.draw(np.random.default_rng(seed_for(spec.seed, i, key)))
            for key, r in random_values(group).items()
        }
        if len(group.grid) > 1:
            values[TEMPLATE] = i % len(group.grid)
        found.append(values)
    return found


def _domain(r: Random) -> Any:
    """Translate a random value into Tune's distribution."""
    if r.form == "integers":
        return tune.randint(r.arguments[0], r.arguments[1] + 1)
    if r.form == "choice":
        return tune.choice(list(r.arguments))
    return getattr(tune, r.form)(*r.arguments)


def _trainable() -> Callable[..., None]:
    """Return :func:`train` as a function that Ray pickles by value; see the pool of workers."""

    def trainable(values: dict[str, Any], given: list[Any]) -> None:
        from cl_platform.config.registry import load

        load("command", "sweeps.tuning.ray_tune:train")(values, *ray.get(given[0]))

    return trainable


def train(
    values: dict[str, Any], spec: SweepSpec, group: Group, out: Path, streams: Mapping[str, Any]
) -> None:
    """Train a trial, in its process; report after each experience the mean objective over seeds."""
    assert spec.tune is not None
    planner, store = _tools(out, spec)
    for k in range(1, group.experiences + 1):
        objective, error = FAILED, None
        try:
            configs = [config_of(spec, {**point_of(group, values), "seed": s}) for s in group.seeds]
            for config in configs:
                fetch(planner, config, streams)
            objective = statistics.fmean(
                _objective(spec.tune, advance(planner(config), store, k), k) for config in configs
            )
        except ClpError as failure:
            error = str(failure)
        tune.report({"experience": k, "objective": objective, "values": values, "error": error})
        if error is not None:
            return


def _objective(tuned: Tune, metrics: Mapping[str, float], k: int) -> float:
    """Return the metric, signed so that more is better."""
    value = metrics.get(f"validation/{tuned.metric}", float("nan"))
    if value != value:
        raise BadInput(f"there is no validation/{tuned.metric} after {k} experiences")
    return value if tuned.mode == "max" else -value


_cache: dict[Path, tuple[Planner, StateStore]] = {}


def _tools(out: Path, spec: SweepSpec) -> tuple[Planner, StateStore]:
    """Return the planner and the store, which a process keeps from trial to trial."""
    if out not in _cache:
        set_up_process(spec.resources)
        budget = int(spec.state_budget_gb * 1e9)
        most = spec.prediction_budget_mb * 1e6
        store = StateStore(
            out / "states", "all", budget, predictions=spec.predictions, prediction_budget=most
        )
        _cache[out] = Planner(), store
    return _cache[out]
