"""The trials of a sweep's tuning, as its record has them, and the choices among them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from cl_platform.config.labels import label
from cl_platform.report.leaderboard import Measure
from cl_platform.report.runs import Runs
from cl_platform.results.load import read_results

# A parameter in the label of a plugin: `er memory_size=60 layers=[8 8]`.
PARAMETER = re.compile(r" ([\w.]+)=(\[.*?\](?= [\w.]+=|$)|\S+)")
BY_VALIDATION = "policy"  # tunes otherwise: what it tries are no settings
COMPARED = ("stream", "curriculum", "scenario")  # axes with a choice for each value, like strategy


@dataclass(frozen=True)
class Trial:
    """One point that tuning tried.

    Args:
        group: the values that are compared, for each of which one point is chosen.
        settings: what it tried, by dotted key, as text.
        value: the objective on validation data, its mean over seeds; nan if it has none.
        seeds: their number; 0 where the record does not say.
        learned: experiences after which it was stopped; None where none is stopped early.
        error: what it said if it failed.
        chosen: whether it is the choice of its group.
    """

    group: Mapping[str, str]
    settings: Mapping[str, str]
    value: float
    seeds: int = 0
    learned: int | None = None
    error: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Choice:
    """The point that was chosen for a group."""

    group: Mapping[str, str]
    settings: Mapping[str, str]
    value: float
    seeds: int


@dataclass(frozen=True)
class Tuning:
    """All that a sweep's tuning did.

    Args:
        how: a few words on the method.
        spec: the axes of the specification, as they were given.
    """

    measure: Measure
    how: str
    spec: Mapping[str, Any]
    trials: Sequence[Trial]
    choices: Sequence[Choice]

    def tried(self) -> list[str]:
        """Return the settings that were tried in several values, of one strategy at least; all of
        the choices' where no trials are on record."""
        values: dict[tuple[str, str], set[str]] = {}
        for trial in self.trials:
            for key, text in trial.settings.items():
                values.setdefault((key, trial.group.get("strategy", "")), set()).add(text)
        several = [key for (key, _), found in values.items() if len(found) > 1]
        given = [key for choice in self.choices for key in choice.settings]
        return list(dict.fromkeys(several if self.trials else given))


def tuning_of(runs: Runs) -> Tuning | None:
    """Return what the tuning of a sweep did; None for a folder without."""
    spec: Mapping[str, Any] = runs.sweep.get("spec", {})
    tune = spec.get("tune")
    if not tune:
        return None
    choices = [_choice(chosen) for chosen in runs.sweep["chosen"]]
    groups = [*choices[0].group] if choices else None
    phase = next((p for p in runs.sweep["phases"] if p["name"] == "tune"), None)
    if phase is None or tune.get("method") == BY_VALIDATION:
        trials: list[Trial] = []
    elif phase.get("trials"):
        trials = [_of_search(trial) for trial in phase["trials"]]
    else:
        trials = [*_of_runs(runs, phase, tune, groups)]
    marked = [replace(t, chosen=any(_is_of(t, choice) for choice in choices)) for t in trials]
    measure = Measure(str(tune.get("metric", "average_accuracy")))
    return Tuning(measure, _how(tune), spec.get("axes", {}), marked, choices)


def _how(tune: Mapping[str, Any]) -> str:
    seen = tune.get("experiences", "all")
    first = "" if seen == "all" else f", after the first {seen} experiences of each run"
    return f"tune.method {tune.get('method', 'all')}{first}"


def _choice(chosen: Mapping[str, Any]) -> Choice:
    group = chosen.get("group", {})
    value = chosen["objective"]
    settings = settings_of(chosen["point"], group)
    return Choice(group, settings, math.nan if value is None else value, chosen["seeds"])


def _is_of(trial: Trial, choice: Choice) -> bool:
    """Return whether a trial is a choice; that of a search over orders names the order alone."""
    return trial.group == choice.group and trial.settings.items() <= choice.settings.items()


def _of_search(trial: Mapping[str, Any]) -> Trial:
    """Return a trial of an adaptive method, which reports after each experience."""
    given = {k: label(v) for k, v in trial["values"].items() if k != "template"}
    found = [math.nan if v is None else v for v in trial["objectives"]]
    point = trial.get("point") or {re.sub(r"^\d+/", "", k): v for k, v in given.items()}
    return Trial(
        trial["group"],
        settings_of(point, trial["group"]),
        found[-1] if found else math.nan,
        learned=len(found) if len(found) > 1 else None,
        error=trial.get("error") or "",
    )


def _of_runs(
    runs: Runs, phase: Mapping[str, Any], tune: Mapping[str, Any], groups: Sequence[str] | None
) -> Iterator[Trial]:
    """Yield the trials of a phase of runs: those that differ in their seed alone are one."""
    metric = f"validation/{tune.get('metric', 'average_accuracy')}"
    values = _values(runs, phase, metric)
    same: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for run in phase["runs"]:
        point = tuple((k, v) for k, v in run["point"].items() if k != "seed")
        same.setdefault(point, []).append(run)
    base = label(runs.sweep["spec"].get("base", {}).get("strategy", ""))
    for point, members in same.items():
        found = [values[run["run_id"]] for run in members]
        group = _group({"strategy": base, **dict(point)}, groups or tune.get("per"))
        errors = [run["error"] for run in members if "error" in run]
        settings = settings_of(dict(point), group)
        yield Trial(group, settings, fmean(found), len(found), error=next(iter(errors), ""))


def _values(runs: Runs, phase: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Return the objective of each run, on record or in its result; nan where it has none."""
    given = {run["run_id"]: run.get("metrics", {}).get(metric) for run in phase["runs"]}
    known = {result.run_id: result for result in runs.results}
    failed = {run["run_id"] for run in phase["runs"] if "error" in run}
    lacking = [i for i, v in given.items() if v is None and i not in known and i not in failed]
    known |= {result.run_id: result for result in read_results(runs.folder, lacking)}
    for run_id, value in given.items():
        if value is None and run_id in known:
            given[run_id] = known[run_id].metrics.get(metric)
    return {i: math.nan if value is None else float(value) for i, value in given.items()}


def _group(point: Mapping[str, str], names: Sequence[str] | None) -> dict[str, str]:
    """Return the compared values of a point: of the strategy its name."""
    if names is None:
        names = ["strategy", *(k for k in point if k.partition(".")[0] in COMPARED)]
    own = {**point, "strategy": name_of(point.get("strategy", ""))}
    return {key: own.get(key, "") for key in names}


def name_of(text: str) -> str:
    """Return the name in the label of a plugin with its parameters."""
    return PARAMETER.sub("", text)


def settings_of(point: Mapping[str, str], group: Mapping[str, str]) -> dict[str, str]:
    """Return what a point tries, by dotted key: its values but the compared ones and the seed, and
    of a strategy its parameters."""
    found: dict[str, str] = {}
    for key, text in point.items():
        if key == "strategy":
            found |= {f"strategy.{name}": value for name, value in PARAMETER.findall(text)}
        elif key not in group and key != "seed":
            found[key] = text
    return found
