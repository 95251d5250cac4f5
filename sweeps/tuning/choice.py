"""Choosing points by validation data, and the final runs that follow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.config.labels import label
from cl_platform.config.run_config import SHORTHANDS, RunConfig, parse_config
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError, ConfigError
from cl_platform.results.result import Result
from sweeps.planning import Run, config_of, run_of, variants
from sweeps.record import Phase, Tally, plain
from sweeps.space import CONTINUOUS, Point, Random, randoms, replace_randoms, templates
from sweeps.spec import ORDER_METHODS, Final, SweepSpec, Tune

TEMPLATE = "template"  # the parameter of a trial that says which of its group's grid points it is
APART = ("stream", "curriculum")  # sections that are compared, like the strategy's name


@dataclass(frozen=True)
class Choice:
    """The best point of a group: what is tuned and kept for the final runs."""

    group: dict[str, str]
    point: dict[str, str]
    objective: float
    seeds: int
    config: RunConfig

    def to_json(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        return {**vars(self), **plain({"objective": self.objective}), "config": config}


def check_validation(runs: Sequence[Run], planner: Planner) -> None:
    """Whether the streams have the validation data that tuning needs.

    Raises:
        BadInput: one has none.
    """
    for run in runs:
        stream = planner.stream(run.config)
        if not all(len(e.validation) for e in stream.experiences):
            raise BadInput(
                f"tune: stream {stream.name!r} has no validation data, and test data choose "
                "nothing; give base.stream.validation, say 0.1"
            )


def choose(tune: Tune, phase: Phase, out: Path) -> list[Choice]:
    """The best point of each group, by the mean of the objective over seeds.

    Points of which a run failed, or has no number for the metric, are not chosen.

    Raises:
        ClpError: a group has no point left; says why its first run failed.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in phase.runs:
        groups.setdefault(tuple(group_of(tune, run).values()), []).append(run)
    return [_best(tune, phase, runs, out) for runs in groups.values()]


def group_of(tune: Tune, run: Run) -> dict[str, str]:
    """The values of the axes that are not chosen but compared; of a strategy its name."""
    own = {"strategy": str(run.config.strategy["name"])}
    if tune.per is not None:
        return {key: own.get(key, run.point.get(key, "")) for key in tune.per}
    heads = {key: SHORTHANDS.get(key, key).partition(".")[0] for key in run.point}
    return own | {key: v for key, v in run.point.items() if heads[key] in APART}


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
    """A validation metric of a run; nan if it has none."""
    metrics = phase.metrics.get(run.run_id)
    if not metrics and run.run_id in phase.done:
        result = Result.load(out / "runs" / run.run_id)
        metrics = result.metrics if result is not None else {}
    return float((metrics or {}).get(f"validation/{metric}", math.nan))


def final_runs(
    final: Final, choices: Sequence[Choice], tuned: Sequence[Run], planner: Planner
) -> list[Run]:
    """Each choice with each final seed, on the whole stream."""
    used = {run.config.seed for run in tuned}
    seeds = final.seeds
    if isinstance(seeds, int):
        unused = (s for s in range(seeds + len(used)) if s not in used)
        seeds = [next(unused) for _ in range(seeds)]
    runs = {}
    for choice in choices:
        for seed in seeds:
            settings = {**choice.config.model_dump(), "seed": seed}
            point = {**choice.point, "seed": str(seed)}
            run = run_of(planner, parse_config(settings), point, None)
            runs[run.run_id] = run
    return list(runs.values())


@dataclass(frozen=True)
class Group:
    """One search: the points of the grid that are the same but for what is tuned.

    Args:
        grid: points with what is random still to be drawn; their seed is left out.
        seeds: over which the objective is averaged.
        experiences: that a trial may see at most.
    """

    names: dict[str, str]
    grid: tuple[Point, ...]
    seeds: tuple[int, ...]
    experiences: int


def groups(spec: SweepSpec, planner: Planner) -> list[Group]:
    """The searches of a specification, one for each value of the axes that are compared.

    Raises:
        ConfigError: a point is faulty, or there is nothing that the method could choose.
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
    """A point as people read it; what is still random as its form."""
    return {k: label(v) for k, v in point.items()}


def _search_fault(tune: Tune, group: Group) -> str | None:
    forms = {r.form for r in drawn(group).values()}
    names = " ".join(group.names.values())
    if tune.method in ORDER_METHODS:
        return _order_search_fault(tune, group, names)
    if not forms and len(group.grid) < 2:
        return (
            f"nothing to choose for {names}; give it an axis, say lr: {{loguniform: [0.01, 0.5]}}"
        )
    if tune.method == "pbt" and not forms & set(CONTINUOUS):
        return f"it changes uniform and loguniform axes on the way, and {names} has none"
    return None


def _order_search_fault(tune: Tune, group: Group, names: str) -> str | None:
    if len(group.grid) > 1 or drawn(group):
        return (
            f"it chooses orders, and {names} has other values to choose; tune those before, or "
            "name what is compared in tune.per"
        )
    if tune.budget < group.experiences * len(group.seeds):
        return (
            f"tune.budget={tune.budget} is not even one order of {group.experiences} experiences "
            f"with {len(group.seeds)} seeds; give {group.experiences * len(group.seeds)} and more"
        )
    return None


def planned(tune: Tune, searches: Sequence[Group]) -> Tally:
    """What an adaptive method does at most."""
    if tune.method in ORDER_METHODS:
        most = tune.budget * len(searches)
        return Tally(runs=most, experiences=most, distinct=most)
    seen = sum(group.experiences * len(group.seeds) for group in searches)
    return Tally(
        runs=tune.trials * len(searches),
        experiences=tune.trials * seen,
        distinct=tune.trials * seen,
    )


def drawn(group: Group) -> dict[str, Random]:
    """What is random in any of the group's points, by its number (if several) and dotted key."""
    return {
        _parameter(group, i, key): r
        for i, point in enumerate(group.grid)
        for key, r in randoms(point).items()
    }


def _parameter(group: Group, i: int, key: str) -> str:
    return key if len(group.grid) == 1 else f"{i}/{key}"


def point_of(group: Group, values: Mapping[str, Any]) -> Point:
    """The point of a trial."""
    i = values.get(TEMPLATE, 0)
    point: Point = replace_randoms(group.grid[i], lambda key, _: values[_parameter(group, i, key)])
    return point
