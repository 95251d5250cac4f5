"""The runs of a specification, planned before any of them starts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cl_platform.config.labels import label
from cl_platform.config.registry import Kind
from cl_platform.config.run_config import RunConfig, parse_config
from cl_platform.config.signatures import as_section, blame, check_section, instantiate
from cl_platform.core.order.curriculum import Curriculum
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, ConfigError, CurriculumError
from sweeps.space import Point, is_random, points, settings, templates
from sweeps.spec import SweepSpec
from sweeps.tuning.schedule_search import actions, schedules

SHOWN_FAULTS = 20
SCHEDULE = "strategy.schedule"  # the part of a point that says which of all schedules
MOST_SCHEDULED = 5  # experiences: 1050 schedules; of six there are 132,300


@dataclass(frozen=True, eq=False)
class Run:
    """A planned run of a sweep.

    Args:
        point: the values of its axes as text.
        config: complete, with every default filled in.
        order: of its curriculum, so that workers need not compute it again.
        keys: the addresses of its states.
        upto: number of steps to train; tuning may train fewer than there are.
        whole: whether it trains all steps and ends with a result.
    """

    run_id: str
    point: dict[str, str]
    config: RunConfig
    order: tuple[int, ...]
    keys: tuple[str, ...]
    upto: int
    whole: bool


def plan_runs(spec: SweepSpec, planner: Planner, given: Iterable[Point] | None = None) -> list[Run]:
    """Plan the runs of a sweep.

    Args:
        given: the points; those of the specification's axes by default.

    Raises:
        ConfigError: with one line per fault of any run, or if the axes give a run twice.
    """
    drawn = points(spec) if given is None else list(given)
    listed = {repr(point) for point in templates(spec) if not is_random(point)}
    limit = spec.budget.runs
    if limit is not None and len(drawn) > limit:  # before they are planned
        raise ConfigError(
            f"the sweep has {len(drawn)} runs and more, above budget.runs={limit}; raise it or "
            "give fewer values"
        )
    runs: dict[str, Run] = {}
    origin: dict[str, Point] = {}
    faults: dict[str, list[str]] = {}
    for point in drawn:
        try:
            found = list(_runs(spec, planner, point))
        except ClpError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, []).append(_text(point))
            continue
        for run in found:
            twin = origin.setdefault(run.run_id, point)
            if run.run_id in runs and {repr(point), repr(twin)} <= listed:
                line = f"the axes give this run more than once: {_text(run.point)}"
                faults.setdefault(f"{line}; drop the repeated value", []).append("")
            runs.setdefault(run.run_id, run)
    if faults:
        raise ConfigError("\n".join(_lines(faults, len(drawn))))
    if not runs:
        raise ConfigError("the sweep has no runs: give axes with at least one value each")
    return list(runs.values())


def values_of(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Return the values of each axis of some runs, as text and in their order."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for axis, value in run.point.items():
            found.setdefault(axis, {})[value] = None
    return {axis: [*values] for axis, values in found.items()}


def run_of(planner: Planner, config: RunConfig, point: dict[str, str], upto: int | None) -> Run:
    """Plan a run that is trained on the first `upto` experiences, or on all of them (None)."""
    plan = planner(config)
    steps, n = len(plan.steps), len(plan.stream)
    if upto is not None and upto < n and steps < n:
        raise ConfigError(
            f"tune.experiences={upto}: strategy {config.strategy['name']!r} trains on the whole "
            "stream at once; give tune.experiences=all or leave it out"
        )
    end = steps if upto is None else min(upto, steps)
    return Run(plan.run_id, point, config, plan.order, plan.keys, end, end == steps)


def config_of(spec: SweepSpec, point: Point) -> RunConfig:
    """Return the complete configuration of a point.

    Raises:
        ConfigError: with one line per fault.
    """
    data = settings(spec.base, point)
    if spec.resources.gpus:
        data.setdefault("device", "cuda")
    gpus = spec.resources.gpus
    processes = 1 if gpus == "auto" else max(1, int(gpus))
    if processes > 1:
        data.setdefault("processes", processes)
    config = parse_config(data)
    if config.device.startswith("cuda:"):
        raise ConfigError(f"device={config.device}: give cuda; Ray chooses which GPU")
    if config.device == "cuda" and gpus and config.processes != processes:
        raise ConfigError(
            f"processes={config.processes} with resources.gpus={gpus}: a run takes a GPU for each "
            "of its processes; leave processes out"
        )
    if config.device == "cuda" and not spec.resources.gpus:
        raise ConfigError("device=cuda without a GPU: give resources.gpus, say 1 or 0.5")
    return config


def _runs(spec: SweepSpec, planner: Planner, point: Point) -> Iterable[Run]:
    upto = None
    if spec.tune is not None and spec.tune.experiences != "all":
        upto = spec.tune.experiences
    config = config_of(spec, point)
    labels = {key: label(value) for key, value in point.items()}
    for section in variants(planner, config):
        chosen = config if section is None else with_section(config, "curriculum", section)
        shown = labels if section is None else {**labels, "curriculum": label(section)}
        if spec.tune is not None and spec.tune.method == "policy":
            for scheduled in every_schedule(planner, chosen):
                schedule = {SCHEDULE: label(scheduled.strategy["schedule"])}
                yield run_of(planner, scheduled, {**shown, **schedule}, upto)
        else:
            yield run_of(planner, chosen, shown, upto)


def every_schedule(planner: Planner, config: RunConfig) -> Iterator[RunConfig]:
    """Yield a configuration of `scheduled-replay` with each schedule of its stream.

    Raises:
        ConfigError: the strategy has no schedule left to choose, or the stream has too many.
    """
    strategy, n = config.strategy, len(planner.stream(config))
    if strategy.get("schedule") != "equal" or strategy.get("policy", "") is not None:
        raise ConfigError(
            "tune.method=policy learns the schedules of strategy scheduled-replay: give that one, "
            "without schedule or policy"
        )
    if n > MOST_SCHEDULED:
        raise ConfigError(
            f"tune.method=policy trains every replay schedule, of which {n} experiences have "
            f"{math.prod(len(actions(k)) for k in range(n)):,}: give a stream of {MOST_SCHEDULED} "
            "experiences at most"
        )
    for schedule in schedules(n):
        section = {**strategy, "schedule": [list(shares) for shares in schedule]}
        yield config.model_copy(update={"strategy": section})


def variants(planner: Planner, config: RunConfig) -> list[Mapping[str, Any] | None]:
    """Return the curricula that the configuration's one stands for; [None] for just itself."""
    curriculum = instantiate("curriculum", config.curriculum)
    if not isinstance(curriculum, Curriculum) or type(curriculum).variants is Curriculum.variants:
        return [None]
    stream = planner.stream(config).without_test_data()
    try:
        return [as_section(v) for v in curriculum.variants(stream)] or [None]
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's curriculum raises
        name = config.curriculum["name"]
        raise CurriculumError(f"curriculum {name!r} gives no variants: {blame(error)}") from error


def with_section(config: RunConfig, kind: Kind, section: Any) -> RunConfig:
    """Return a complete configuration with another plugin; nothing else is checked again.

    Raises:
        ConfigError: with one line per fault of the section.
    """
    checked, faults = check_section(kind, as_section(section), kind)
    if not faults:
        try:
            json.dumps(checked)
        except (TypeError, ValueError) as error:  # a user's curriculum may give any object
            faults = [f"{kind}={checked!r:.60} cannot be written as JSON: {error}"]
    if faults:
        raise ConfigError("\n".join(faults))
    return config.model_copy(update={kind: checked})


def _text(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={label(value)}" for key, value in point.items())


def _lines(faults: Mapping[str, list[str]], n: int) -> list[str]:
    """Return one line per fault, with its first point unless every run has it."""
    lines = []
    for fault, places in list(faults.items())[:SHOWN_FAULTS]:
        somewhere = places[0] and len(places) < n
        lines.append(f"{fault} (in {len(places)} of {n} runs: {places[0]})" if somewhere else fault)
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"and {len(faults) - SHOWN_FAULTS} more")
    return lines
