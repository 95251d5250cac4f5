"""The reference runs of a sweep: joint training and experts, made once for equal settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cl_platform.config.per_experience import series
from cl_platform.config.run_config import RunConfig
from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.matrix import Accuracies
from cl_platform.engine.planner import EVALUATION, Planner
from cl_platform.errors import BadInput
from cl_platform.results.references import JOINT, References, joint_references, settings_key
from cl_platform.results.result import Result
from cl_platform.storage.files import each
from cl_platform.storage.state_store import StateStore
from sweeps.planning import Run, run_of, with_section
from sweeps.record import Phase
from sweeps.spec import SweepSpec

NAME = "references"  # of their phase
EXPERT = "finetune"  # the strategy whose first step makes an expert


def reference_runs(spec: SweepSpec, runs: Iterable[Run], planner: Planner) -> list[Run]:
    """Plan the references of `runs` that `runs` do not contain.

    An expert is the first step of the fold over an order that begins with its experience, so that
    runs of the same strategy that begin with it share it. A joint run among `runs` is a reference.

    Raises:
        ClpError: the settings do not allow for the references.
    """
    groups: dict[str, list[Run]] = {}  # of runs that share their references
    for run in runs:
        groups.setdefault(_key(run.config), []).append(run)
    found = []
    for own in groups.values():
        config = own[0].config
        if spec.references and (lists := series(config)):
            raise BadInput(
                f"references: {' and '.join(lists)} of a list over experiences; joint training and "
                "experts have no place in it: give one value, or leave references out"
            )
        if "joint" in spec.references:
            joint = _run(planner, config, {"reference": "joint"}, JOINT, {"name": "as_given"}, None)
            if all(run.keys != joint.keys for run in own):  # equal keys: the same training
                found.append(joint)
        if "experts" in spec.references:
            found += [_expert(planner, config, j) for j in range(len(planner.stream(config)))]
    return found


def reference_phase(references: Sequence[Run], planner: Planner, out: Path) -> Phase:
    """Return the phase of reference runs; experts whose accuracy is on record are done."""
    phase = Phase(NAME, references)
    experts = _of_strategy(EXPERT, references)
    rows = zip(experts, _first_rows(experts, planner, out), strict=True)
    phase.done |= {run.run_id for run, row in rows if row}
    return phase


def whole_phase(
    runs: Sequence[Run], references: Sequence[Run], planner: Planner, out: Path
) -> Phase:
    """Return runs and their references as one phase, to count them together."""
    done = reference_phase(references, planner, out).done
    done -= {run.run_id for run in runs}  # an expert may begin one of them
    return Phase("runs", [*runs, *references], done=done)


def collect(spec: SweepSpec, phases: Sequence[Phase], planner: Planner, out: Path) -> References:
    """Return the references of the last phase's runs that have been made, by settings."""
    found: References = {}
    made = [run for phase in phases if phase.name == NAME for run in phase.runs]
    if "joint" in spec.references:
        joint = _of_strategy(JOINT, [*phases[-1].runs, *made])
        results = each(out, lambda run: Result.load(out / "runs" / run.run_id, run.run_id), joint)
        for key, row in joint_references([r for r in results if r is not None]).items():
            found.setdefault(key, {})["joint"] = row
    experts = _of_strategy(EXPERT, made)
    for run, row in zip(experts, _first_rows(experts, planner, out), strict=True):
        identity = planner(run.config, run.order).stream.scored[0].identity
        for mask, accuracies in row.items():
            of_settings = found.setdefault(_key(run.config), {}).setdefault("experts", {})
            of_settings.setdefault(mask, {})[identity] = accuracies[identity]
    return found


def _key(config: RunConfig) -> str:
    return settings_key(config.model_dump(mode="json"))


def _expert(planner: Planner, config: RunConfig, j: int) -> Run:
    stream = planner.stream(config)
    order = [j, *(i for i in range(len(stream)) if i != j)]
    point = {"reference": "expert", "experience": stream[j].name}
    return _run(planner, config, point, EXPERT, {"name": "explicit", "order": order}, 1)


def _run(
    planner: Planner,
    config: RunConfig,
    point: dict[str, str],
    strategy: str,
    curriculum: dict[str, object],
    upto: int | None,
) -> Run:
    plain = {"pacing": None, "boundaries": "known"}  # references are plain training
    own = config.model_copy(update=plain)
    own = with_section(own, "strategy", {"name": strategy})
    own = with_section(own, "curriculum", curriculum)
    return run_of(planner, own, {**point, "settings": _key(config)}, upto)


def _of_strategy(name: str, runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.config.strategy["name"] == name]


def _first_rows(runs: Sequence[Run], planner: Planner, out: Path) -> list[Accuracies]:
    """Return the accuracies after the first step of each run; empty where none are on record."""
    store, evaluator = StateStore(out / "states"), kernel_digest(*EVALUATION)
    streams = [planner(run.config, run.order).stream for run in runs]
    asked = [
        (run.keys[1], [e.identity for e in stream.scored])
        for run, stream in zip(runs, streams, strict=True)
    ]
    records = each(out, lambda one: store.record(*one), asked)
    return [r.rows.get("test", {}) if r.evaluator == evaluator else {} for r in records]
