"""The points that tuning chooses by validation data, and the final runs that follow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.config.labels import label
from cl_platform.config.run_config import SHORTHANDS, RunConfig
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError, ConfigError
from cl_platform.results.result import Result
from sweeps.planning import Run, config_of, run_of, variants
from sweeps.record import Phase, Tally, plain
from sweeps.space import Point, Random, randoms, replace_randoms, templates
from sweeps.spec import ORDER_METHODS, Final, SweepSpec, Tune

TEMPLATE = "template"  # the parameter of a trial that holds the number of its grid point
COMPARED = ("stream", "curriculum")  # sections that are compared, like the strategy's name


@dataclass(frozen=True)
class Choice:
    """The best point of a group, and the configuration that the final runs repeat."""

    group: dict[str, str]
    point: dict[str, str]
    objective: float
    seeds: int
    config: RunConfig

    def to_json(self) -> dict[str, Any]:
        """Return the choice as it stands in `sweep.json`."""
        config = self.config.model_dump(mode="json")
        return {**vars(self), **plain({"objective": self.objective}), "config": config}


def check_validation(runs: Sequence[Run], planner: Planner) -> None:
    """Raise BadInput if a stream lacks the validation data that tuning needs."""
    for run in runs:
        stream = planner.stream(run.config)
        if not all(len(e.validation) for e in stream.experiences):
            raise BadInput(
                f"tune: stream {stream.name!r} has no validation data, and tuning must not "
                "use test data; give base.stream.validation, say 0.1"
            )


def choose(tune: Tune, phase: Phase, out: Path) -> list[Choice]:
    """Choose the best point of each group, by the mean of the objective over seeds.

    Points with a failed run, or a run whose metric is nan, are left out.

    Raises:
        ClpError: a group has no point left; the message has the error of its first run.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in phase.runs:
        groups.setdefault(tuple(group_of(tune, run).values()), []).append(run)
    return [_best(tune, phase, runs, out) for runs in groups.values()]


def group_of(tune: Tune, run: Run) -> dict[str, str]:
    """Return the values of the axes that are compared, not chosen; of a strategy its name."""
    own = {"strategy": str(run.config.strategy["name"])}
    if tune.per is not None:
        return {key: own.get(key, run.point.get(key, "")) for key in tune.per}
    heads = {key: SHORTHANDS.get(key, key).partition(".")[0] for key in run.point}
    return own | {key: v for key, v in run.point.items() if heads[key] in COMPARED}


def _best(tune: Tune, phase: Phase, runs: Sequence[Run], out: Path) -> Choice:
    candidates: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple((k, v) for k, v in run.point.items() if k != "seed")
        candidates.setdefault(key, []).append(run)
    sign = 1 if tune.mode == "max" else -1
    scored = {
        key: statistics.fmean(objective(tune.metric, phase, run, out) for run in same)
        for key, same in candidates.items()
    }
    sound = {key: value for key, value in scored.items() if not math.isnan(value)}
    group = group_of(tune, runs[0])
    if not sound:
        reason = next((phase.errors[r.run_id] for r in runs if r.run_id in phase.errors), None)
        raise ClpError(
            f"tune: nothing to choose for {' '.join(group.values())}: "
            + (f"every run failed, the first one: {reason}" if reason else f"no {tune.metric}")
        )
    best = max(sound, key=lambda key: sign * sound[key])
    same = candidates[best]
    return Choice(group, dict(best), sound[best], len(same), same[0].config)


def objective(metric: str, phase: Phase, run: Run, out: Path) -> float:
    """Return a validation metric of a run; nan if it has none."""
    metrics = phase.metrics.get(run.run_id)
    if not metrics and run.run_id in phase.done:
        result = Result.load(out / "runs" / run.run_id, run.run_id)
        metrics = result.metrics if result is not None else {}
    return float((metrics or {}).get(f"validation/{metric}", math.nan))


def final_runs(
    final: Final, choices: Sequence[Choice], tuned: Sequence[Run], planner: Planner
) -> list[Run]:
    """Plan each choice with each final seed, on the whole stream."""
    used = {run.config.seed for run in tuned}
    seeds = final.seeds
    if isinstance(seeds, int):
        unused = (s for s in range(seeds + len(used)) if s not in used)
        seeds = [next(unused) for _ in range(seeds)]
    runs = {}
    for choice in choices:
        for seed in seeds:
            config = choice.config.model_copy(update={"seed": seed})
            run = run_of(planner, config, {**choice.point, "seed": str(seed)}, None)
            runs[run.run_id] = run
    return list(runs.values())


@dataclass(frozen=True)
class Group:
    """One search: the points of the grid that differ in tuned values only.

    Args:
        names: the compared values that the points share.
        grid: the points, all with seed 0; random values are not drawn yet.
        seeds: to average the objective over.
        experiences: most that a trial learns.
    """

    names: dict[str, str]
    grid: tuple[Point, ...]
    seeds: tuple[int, ...]
    experiences: int


def groups(spec: SweepSpec, planner: Planner) -> list[Group]:
    """Return the searches of a specification, one for each value of the compared axes.

    Raises:
        ConfigError: a point is faulty, or leaves the method nothing to choose.
    """
    assert spec.tune is not None
    found: dict[tuple[str, ...], list[tuple[Point, Run]]] = {}
    for point in templates(spec):
        first = replace_randoms(point, lambda key, r: r.draw(np.random.default_rng(0)))
        for section in variants(planner, config_of(spec, first)):
            given = {} if section is None else {"curriculum": dict(section)}
            one = {**point, **given}
            run = run_of(planner, config_of(spec, {**first, **given}), labels(one), None)
            found.setdefault(tuple(group_of(spec.tune, run).values()), []).append((one, run))
    result = []
    for members in found.values():
        run = members[0][1]
        seeds = sorted({member.config.seed for _, member in members})
        grid = {repr(p): p for p in ({**point, "seed": 0} for point, _ in members)}
        steps = len(planner.stream(run.config))
        seen = steps if spec.tune.experiences == "all" else min(spec.tune.experiences, steps)
        group = Group(group_of(spec.tune, run), tuple(grid.values()), tuple(seeds), seen)
        if fault := _search_fault(spec.tune, group):
            raise ConfigError(f"tune.method={spec.tune.method}: {fault}")
        result.append(group)
    return result


def labels(point: Point) -> dict[str, str]:
    """Return the values of a point as text; those still to be drawn as their form."""
    return {k: label(v) for k, v in point.items()}


def _search_fault(tune: Tune, group: Group) -> str | None:
    names = " ".join(group.names.values())
    several = len(group.grid) > 1 or random_values(group)
    least = group.experiences * len(group.seeds)
    if tune.method not in ORDER_METHODS and not several:
        return (
            f"nothing to choose for {names}; give it an axis, say lr: {{loguniform: [0.01, 0.5]}}"
        )
    if tune.method in ORDER_METHODS and several:
        return (
            f"it chooses orders, and {names} has other values to choose; tune those before, or "
            "name what is compared in tune.per"
        )
    if tune.method in ORDER_METHODS and tune.budget < least:
        return (
            f"tune.budget={tune.budget} is not even one order of {group.experiences} experiences "
            f"with {len(group.seeds)} seeds; give {least} or more"
        )
    return None


def upper_bound(tune: Tune, searches: Sequence[Group]) -> Tally:
    """Return the most work that an adaptive method does."""
    if tune.method in ORDER_METHODS:
        most = tune.budget * len(searches)
        return Tally(runs=most, experiences=most, distinct=most)
    most = tune.trials * sum(group.experiences * len(group.seeds) for group in searches)
    return Tally(runs=tune.trials * len(searches), experiences=most, distinct=most)


def random_values(group: Group) -> dict[str, Random]:
    """Return the random values of all points of a group, by point (if several) and dotted key."""
    return {
        _parameter(group, i, key): r
        for i, point in enumerate(group.grid)
        for key, r in randoms(point).items()
    }


def _parameter(group: Group, i: int, key: str) -> str:
    return key if len(group.grid) == 1 else f"{i}/{key}"


def point_of(group: Group, values: Mapping[str, Any]) -> Point:
    """Return the point of a trial."""
    i = values.get(TEMPLATE, 0)
    point: Point = replace_randoms(group.grid[i], lambda key, _: values[_parameter(group, i, key)])
    return point
