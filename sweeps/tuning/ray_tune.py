"""Adaptive search with Ray Tune: trials report after each experience and may be stopped early.

Tune proposes and stops; what is known lies in our store. A search that is started again goes
through the same points, and what was trained before is looked up.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator, Searcher

from cl_platform.core.digests import digest
from cl_platform.core.rng import seed_for
from cl_platform.engine.execution import advance
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.storage.files import discard
from cl_platform.storage.state_store import StateStore
from sweeps.executor.cluster import needs
from sweeps.executor.driver import Driver, Stopped
from sweeps.executor.pool import threads
from sweeps.executor.worker import fetch, settle, shared_streams
from sweeps.planning import config_of
from sweeps.record import Phase
from sweeps.space import CONTINUOUS, Random
from sweeps.spec import SweepSpec, Tune
from sweeps.tuning.choice import TEMPLATE, Choice, Group, drawn, groups, labels, planned, point_of

FAILED = -1e9  # the objective, times its sign, of a trial that failed: schedulers cannot take nan


@dataclass
class Trial:
    """What one trial has reported.

    Args:
        values: what was drawn, by dotted key.
        objectives: after each experience.
        error: why it failed, if it did.
    """

    values: dict[str, Any]
    objectives: list[float] = field(default_factory=list)
    error: str | None = None


def search(driver: Driver, phase: Phase) -> list[Choice]:
    """Search in each group; notes all trials in the phase.

    Raises:
        ConfigError: a point is faulty.
        ClpError: every trial of a group failed.
        Stopped: the budget's time is over.
        KeyboardInterrupt: what was trained is kept.
    """
    assert driver.spec.tune is not None
    found = groups(driver.spec, driver.planner)
    phase.tally = planned(driver.spec.tune, found)
    configs = [config_of(driver.spec, point_of(g, _draws(driver.spec, g)[0])) for g in found]
    driver.connect(configs)
    streams = shared_streams(configs, driver.planner)
    chosen = []
    for group in found:
        chosen.append(_TuneSearch(driver, group, phase, streams).run())
        if time.monotonic() > driver.deadline:
            raise Stopped(f"the budget of {driver.spec.budget.hours:g} hours is used up")
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
        """Search, and the best point found."""
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # five files a trial
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would end as if all were done
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        random.seed(self.spec.seed)  # population-based training draws from the global generators
        np.random.seed(self.spec.seed % 2**32)  # noqa: NPY002
        scratch = self.out / "tune"
        try:
            Tuner(
                tune.with_resources(self._trainable(), needs(self.spec.resources)),
                param_space=self._space() if self.tune.method != "optuna" else {},
                tune_config=TuneConfig(
                    metric="objective",
                    mode="max",
                    scheduler=self._scheduler(),
                    search_alg=self._searcher(),
                    num_samples=self.tune.trials,
                    max_concurrent_trials=self.spec.workers or 0,
                    reuse_actors=True,
                    time_budget_s=self._seconds(),
                ),
                run_config=RunConfig(
                    storage_path=str(scratch),
                    name=digest(self.group.names)[:12],
                    verbose=0,
                    callbacks=[_Listener(self)],
                    failure_config=FailureConfig(max_failures=2),
                ),
            ).fit()
        finally:
            discard(scratch)  # Tune's records are not ours
            self.phase.trials += [
                {"group": self.group.names, **vars(trial)} for trial in self.trials.values()
            ]
        return self._best()

    def heard(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note what a trial reports."""
        trial = self.trials.setdefault(trial_id, Trial(result["values"]))
        trial.values, trial.error = result["values"], result["error"]
        known = len(trial.objectives)
        reported = [] if trial.error else [self.sign * result["objective"]]
        trial.objectives[result["experience"] - 1 :] = reported
        self.phase.tally.trained += max(0, len(trial.objectives) - known) * len(self.group.seeds)
        self.phase.tally.failed = sum(t.error is not None for t in self.trials.values())
        self.driver.watch(self.phase)

    def ended(self, trial_id: str) -> None:
        self.phase.tally.done += trial_id in self.trials and self.trials[trial_id].error is None

    def _best(self) -> Choice:
        sound = [t for t in self.trials.values() if t.error is None and t.objectives]
        if not sound:
            errors = [t.error for t in self.trials.values() if t.error]
            raise ClpError(
                f"tune: every trial for {' '.join(self.group.names.values())} failed, the first "
                f"one: {errors[0] if errors else 'no report'}"
            )
        best = sound[0]
        for trial in sound[1:]:
            best = self._better(best, trial)
        point = point_of(self.group, best.values)
        config = config_of(self.spec, {**point, "seed": self.group.seeds[0]})
        named = {k: v for k, v in labels(point).items() if k != "seed"}
        return Choice(self.group.names, named, best.objectives[-1], len(self.group.seeds), config)

    def _better(self, one: Trial, other: Trial) -> Trial:
        """The better of two after the last experience that both have seen; else the longer one."""
        shared = min(len(one.objectives), len(other.objectives)) - 1
        gain = self.sign * (other.objectives[shared] - one.objectives[shared])
        longer = len(other.objectives) > len(one.objectives)
        return other if gain > 0 or (gain == 0 and longer) else one

    def _trainable(self) -> Callable[[dict[str, Any]], None]:
        trainable: Callable[[dict[str, Any]], None] = tune.with_parameters(
            _trial, spec=self.spec, group=self.group, out=self.out, streams=self.streams
        )
        return trainable

    def _seconds(self) -> float | None:
        """What is left of the budget's time."""
        left = self.driver.deadline - time.monotonic()
        return None if left == float("inf") else max(1.0, left)

    def _space(self) -> dict[str, Any]:
        """The parameters of a trial by flat names, as Tune's distributions."""
        space = {key: _domain(r) for key, r in drawn(self.group).items()}
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
            raise BadInput("tune.method=optuna needs the extra optuna: install it") from error

    def _scheduler(self) -> TrialScheduler:
        end = self.group.experiences
        if self.tune.method == "asha":
            grace = min(self.tune.grace, end)
            return AsyncHyperBandScheduler("experience", max_t=end, grace_period=grace)
        if self.tune.method == "hyperband":
            return HyperBandScheduler("experience", max_t=end)
        if self.tune.method == "pbt":
            mutable = {
                k: _domain(r)
                for k, r in drawn(self.group).items()
                if r.form in CONTINUOUS  # others may change the shape of what is remembered
            }
            return PopulationBasedTraining(
                "experience",
                perturbation_interval=1,
                burn_in_period=self.tune.grace,
                hyperparam_mutations=mutable,
            )
        return FIFOScheduler()


class _Listener(tune.Callback):
    """Passes on what trials report."""

    def __init__(self, search: _TuneSearch) -> None:
        self.search = search

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its callbacks to a file; ours belongs to this process

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        self.search.heard(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.search.ended(trial.trial_id)


def _draws(spec: SweepSpec, group: Group) -> list[dict[str, Any]]:
    """The values of each trial; grid points take turns."""
    assert spec.tune is not None
    found = []
    for i in range(spec.tune.trials):
        values = {
            key: r.draw(np.random.default_rng(seed_for(spec.seed, i, key)))
            for key, r in drawn(group).items()
        }
        if len(group.grid) > 1:
            values[TEMPLATE] = i % len(group.grid)
        found.append(values)
    return found


def _domain(r: Random) -> Any:
    """The distribution in Tune's words."""
    if r.form == "integers":
        return tune.randint(r.arguments[0], r.arguments[1] + 1)
    if r.form == "choice":
        return tune.choice(list(r.arguments))
    return getattr(tune, r.form)(*r.arguments)


# ---------------------------------------------------------------- in the trials' processes


def _trial(
    values: dict[str, Any],
    spec: SweepSpec,
    group: Group,
    out: Path,
    streams: Mapping[str, Any],
) -> None:
    """One trial: after each experience it reports the objective, the mean over the tuning seeds."""
    assert spec.tune is not None
    history: list[dict[str, Any]] = []  # what the trial was trained with, experience by experience
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            history = json.loads((Path(folder) / "history.json").read_text())
    for k in range(len(history) + 1, group.experiences + 1):
        history.append(values)
        error = None
        try:
            objective = _objective(spec, spec.tune, group, out, history, streams)
        except ClpError as failure:
            objective, error = FAILED, str(failure)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "history.json").write_text(json.dumps(history))
            tune.report(
                {"experience": k, "objective": objective, "values": values, "error": error},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )
        if error is not None:
            return


def _objective(
    spec: SweepSpec,
    tuned: Tune,
    group: Group,
    out: Path,
    history: Sequence[Mapping[str, Any]],
    streams: Mapping[str, Any],
) -> float:
    planner, store = _bench(out, spec)
    found = []
    for seed in group.seeds:
        plans = []
        for values in history:
            config = config_of(spec, {**point_of(group, values), "seed": seed})
            fetch(planner, config, streams)
            plans.append(planner(config))
        metrics = advance(spliced(plans), store, len(history))
        found.append(metrics.get(f"validation/{tuned.metric}", float("nan")))
    objective = statistics.fmean(found)
    if objective != objective:
        raise BadInput(f"there is no validation/{tuned.metric} after {len(history)} experiences")
    return objective if tuned.mode == "max" else -objective


_kept: dict[Path, tuple[Planner, StateStore]] = {}


def _bench(out: Path, spec: SweepSpec) -> tuple[Planner, StateStore]:
    """What a process keeps from trial to trial."""
    if out not in _kept:
        settle(threads(spec.resources), gpus=spec.resources.gpus > 0)
        store = StateStore(out / "states", "all", int(spec.state_budget_gb * 1e9))
        _kept[out] = Planner(), store
    return _kept[out]


def spliced(plans: Sequence[Plan]) -> Plan:
    """The plan of a run whose settings change on the way: ``plans[k]`` holds for experience k.

    A state's address then covers the settings of every experience before it.
    """
    last = plans[-1]
    keys = [plans[0].keys[0]]
    for k in range(1, len(last.keys)):
        now = plans[min(k, len(plans)) - 1]
        same = keys[k - 1] == now.keys[k - 1]
        keys.append(now.keys[k] if same else digest("changed", keys[k - 1], now.keys[k]))
    others = [k for k, plan in enumerate(plans, 1) if plan.keys[0] != last.keys[0]]
    return replace(last, keys=tuple(keys), foreign=max(others, default=0))
