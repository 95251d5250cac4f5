"""Tuning by a policy: what all replay schedules reach on some seeds, and a policy learned from it.

The final runs of the policy have other seeds, so that it is judged where it has not learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.digests import digest
from cl_platform.errors import BadInput, ClpError, ConfigError
from cl_platform.models.policy import Policy, read_policy
from cl_platform.results.result import Result
from cl_platform.storage.files import exists, write_atomic
from sweeps.planning import SCHEDULE, Run
from sweeps.record import Phase
from sweeps.spec import SweepSpec
from sweeps.tuning.choice import Choice, group_of
from sweeps.tuning.schedule_policy import learn_policy
from sweeps.tuning.schedule_table import ScheduleTable, table_of

FOLDER = "policies"  # of a sweep
CODE = ("cl_platform.models.policy", "sweeps.tuning.schedule_policy")  # that a policy depends on


def check(spec: SweepSpec, runs: Sequence[Run]) -> None:
    """Require environments that differ by their seed alone, and other seeds to judge a policy on.

    Raises:
        ConfigError: with one line.
    """
    seeds = {run.config.seed for run in runs}
    final = spec.final.seeds if spec.final is not None else 0
    if isinstance(final, list) and (both := sorted(seeds.intersection(final))):
        raise ConfigError(f"final.seeds: the policy learns on {both}; give seeds of their own")
    for group in _groups(spec, runs):
        points = {tuple(_others(run).items()) for run in group}
        if len(points) > 1:
            raise ConfigError(
                "tune.method=policy learns one policy from the seeds of one setting; tune other "
                "values before, or name what is compared in tune.per"
            )


def learn(spec: SweepSpec, phase: Phase, out: Path) -> list[Choice]:
    """Learn a policy for each group from its runs, and record what it reaches on their seeds.

    A policy that was learned from the same accuracies before is taken as it is.

    Raises:
        ClpError: a schedule failed, so that the table has a hole.
    """
    return [_learn(spec, phase, group, out) for group in _groups(spec, phase.runs)]


def about(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return a line on what a policy reached on the seeds that it learned from."""
    own = fmean(trial["objectives"][0] for trial in trials)
    best, random = (fmean(trial[name] for trial in trials) for name in ("best", "random"))
    return (
        f"validation accuracy after each experience, on the {len(trials)} seeds learned from: "
        f"policy {own:.4f}, the best schedule of each {best:.4f}, random ones {random:.4f}"
    )


def _groups(spec: SweepSpec, runs: Iterable[Run]) -> list[list[Run]]:
    assert spec.tune is not None
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(group_of(spec.tune, run).values()), []).append(run)
    return list(found.values())


def _others(run: Run) -> dict[str, str]:
    return {key: value for key, value in run.point.items() if key not in ("seed", SCHEDULE)}


def _learn(spec: SweepSpec, phase: Phase, runs: Sequence[Run], out: Path) -> Choice:
    assert spec.tune is not None
    tables = _tables(phase, runs, out)
    learning, group = spec.tune.policy.model_dump(), group_of(spec.tune, runs[0])
    given = [sorted(table.rows.items()) for table in tables.values()]
    name = digest(given, learning, spec.seed, kernel_digest(*CODE))[:12]
    path = out / FOLDER / f"{name}.json"
    policy = _known(path)
    if policy is None:
        policy = learn_policy([*tables.values()], **learning, seed=spec.seed)
        content = policy.sealed(group=group, seeds=[*tables], learning=learning)
        write_atomic(path, content)
    reached = [_trial(group, seed, table, policy) for seed, table in tables.items()]
    phase.trials += reached
    config = runs[0].config
    strategy = {**config.strategy, "schedule": "equal", "policy": str(path)}
    return Choice(
        group,
        {**_others(runs[0]), "strategy.policy": path.name},
        fmean(trial["objectives"][0] for trial in reached),
        len(tables),
        config.model_copy(update={"strategy": strategy}),
    )


def _tables(phase: Phase, runs: Sequence[Run], out: Path) -> dict[int, ScheduleTable]:
    """Return the table of each seed, from the results of its runs."""
    found: dict[int, dict[Any, Result]] = {}
    for run in runs:
        result = Result.load(out / "runs" / run.run_id, run.run_id)
        if result is None:
            reason = phase.errors.get(run.run_id, "it has no result")
            raise ClpError(f"tune: schedule {run.point[SCHEDULE]} failed, so no policy: {reason}")
        schedule = tuple(tuple(shares) for shares in run.config.strategy["schedule"])
        found.setdefault(run.config.seed, {})[schedule] = result
    return {seed: table_of(results) for seed, results in found.items()}


def _known(path: Path) -> Policy | None:
    """Return the policy of a file, if it is there and sound."""
    try:
        return read_policy(path) if exists(path) else None
    except BadInput:
        return None


def _trial(
    group: Mapping[str, str], seed: int, table: ScheduleTable, policy: Policy
) -> dict[str, Any]:
    """Return what a policy reaches in an environment, as means over the experiences."""
    n = table.n_experiences
    return {
        "group": dict(group),
        "values": {"seed": seed},
        "objectives": [table.total(table.follow(policy.choose)) / n],
        "best": table.total(table.best()) / n,
        "random": table.average() / n,
    }
