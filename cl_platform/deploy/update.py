"""An update: a run goes on with new data, and what it gained and lost is measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cl_platform.config.registry import load
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import Section, as_section, build, check_section
from cl_platform.core.stream import Stream
from cl_platform.deploy.network import Network
from cl_platform.deploy.scoring import batches
from cl_platform.deploy.trained import network_of, plan_of
from cl_platform.engine.evaluation import credit
from cl_platform.engine.execution import execute
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ConfigError, say_once
from cl_platform.report.update_page import save
from cl_platform.results.load import DEFAULT_OUT, load_run
from cl_platform.results.result import Result
from cl_platform.results.update import ClassChange, Requirement, Update
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Sink

# Parameters that say where data are, or share them out: new data do not inherit them.
OWN = {"path", "train", "test", "experiences", "classes", "class_seed", "by", "boundaries"}
OWN |= {"samples", "test_samples", "test_path", "validation_path", "open"}


def update(
    run: str | Path | Result,
    data: str | Mapping[str, Any] | Stream,
    *,
    require: str | Sequence[str] = (),
    out: str | Path = DEFAULT_OUT,
    sinks: Sequence[Sink] = (),
    keep: Literal["all", "last"] = "all",
) -> Update:
    """Let a run go on with new data, as the next key of its fold, and compare before and after.

    The updated run has the bits of one that had the new experiences from the start. It is a run of
    its own in the same folder: the one before stays as it is.

    Args:
        run: a result, the folder of a run, its id, or the first characters of its id.
        data: a stream, by name, by the path of its data, as a section or as an object; a section
            that says nothing else becomes one experience.
        require: a threshold such as ``old_accuracy>=0.9``, or several; see ``MEASURES``.
        out: the folder of an id.
        sinks, keep: as for :func:`cl_platform.run`.

    Raises:
        BadInput: the run cannot go on, the data do not fit, or a requirement is malformed.
        RunFailed, StorageError: as for :func:`cl_platform.run`.
    """
    texts = [require] if isinstance(require, str) else require
    requirements = tuple(Requirement.parse(text) for text in texts)
    before = run if isinstance(run, Result) else load_run(run, out)
    old = plan_of(before, before.objects)
    if before.path is None:
        raise BadInput(f"run {before.run_id} kept nothing (out=None): give it a folder")
    if not old.stream.open:
        raise BadInput(
            f"run {before.run_id} cannot go on: its stream is closed, and its keys hold all of it. "
            "Train it with --set stream.open=true; such a run can go on"
        )
    plan, objects = _continued(before, old, data)
    root = before.path.parent.parent
    store = StateStore(root / "states")
    if lost := [k for k in range(1, len(old.keys)) if not store.holds(old.keys[k])]:
        say_once(
            f"run {before.run_id}: the states after {len(lost)} of its {len(old.steps)} "
            "experiences were not kept; they are trained again to be scored on the new data"
        )
    after = replace(execute(plan, root, sinks=sinks, keep=keep), objects=objects)
    n = len(old.steps)
    old_model, new_model = (network_of(plan, store, k, retrain=True) for k in (n, None))
    classes = _changes(plan, n, old_model, new_model)
    measures = _measures(plan, n, after, classes, store)
    outcome = Update(before, after, measures, classes, requirements)
    save(outcome)
    return outcome


def recognised(source: str) -> Section:
    """Return the section of a stream by its name, or by what lies at a path.

    Raises:
        BadInput: it is neither.
    """
    section: Section = load("stream", "streams.recognise:section_of")(source)
    return section


def _continued(before: Result, old: Plan, data: Any) -> tuple[Plan, dict[str, Any]]:
    """Return the plan of a run that goes on with new data, and the objects that it is made with."""
    config = copy.deepcopy(before.config)
    objects = {kind: part for kind, part in before.objects.items() if kind != "curriculum"}
    if isinstance(data, Stream) or "stream" in objects:
        base = objects.get("stream") or build("stream", config["stream"])
        later = data if isinstance(data, Stream) else build("stream", _one(data, {}))
        objects["stream"] = base.followed_by(later)
        config["stream"] = {"name": objects["stream"].name}
    else:
        base, more = config["stream"], []
        if base["name"] == "extended":
            base, more = base["base"], base["more"]
        config["stream"] = {
            "name": "extended",
            "base": base,
            "more": [*more, _one(data, as_section(base))],
            "open": True,
        }
    given: Any = tuple(objects)
    planner = Planner(objects)  # which reads the data once
    stream = planner.stream(parse_config(config, given=given))
    level = config["curriculum"].get("level", "experiences")
    n = stream.n_classes if level == "classes" else len(stream)
    order = [*before.order, *range(len(before.order), n)]
    config["curriculum"] = {"name": "explicit", "order": order, "level": level}
    plan = planner(parse_config(config, given=given))
    if plan.keys[: len(old.keys)] != old.keys:
        raise BadInput(
            f"run {before.run_id} would have had other states with these data from the start; give "
            "data that follow what it has learned"
        )
    return plan, objects


def _one(data: str | Mapping[str, Any], base: Section) -> Section:
    """Return the section of new data: one experience, read as the base if by the same plugin."""
    given = recognised(data) if isinstance(data, str) else as_section(data)
    inherited = base if given["name"] == base.get("name") else {}
    section = {k: v for k, v in inherited.items() if k not in OWN} | given
    known, faults = check_section("stream", section, "data")
    if faults:
        raise ConfigError("\n".join(faults))
    if "experiences" in known and not {"experiences", "by"} & given.keys():
        section["experiences"] = 1
    return section


def _changes(plan: Plan, n: int, old: Network, new: Network) -> list[ClassChange]:
    """Return what became of the test samples of the first n experiences, class by class."""
    given = torch.tensor(plan.labels).argsort()  # of each class index of the run
    scored = []
    for e in plan.stream.experiences[:n]:
        for raw, labels in batches(e.test):
            y = given[labels]
            scored.append((y, _right(old, raw, y, e.task), _right(new, raw, y, e.task)))
    y, was, now = (torch.cat(parts) for parts in zip(*scored, strict=True))
    found = []
    for c in y.unique().tolist():
        mine = y == c
        shares = [was, now, was & ~now, now & ~was]
        values = [float(share[mine].double().mean()) for share in shares]
        found.append(ClassChange(new.class_names[c], int(mine.sum()), *values))
    return sorted(found, key=lambda change: change.change)


@torch.inference_mode()
def _right(network: Network, raw: Tensor, y: Tensor, task: int) -> Tensor:
    """Return which samples have the largest logit at their own class alone, (B,) bool."""
    device = network.allowed.device
    logits = network(raw.to(device), torch.full((len(y),), task, device=device)).cpu()
    return credit(logits, y, logits > -torch.inf) == 1


def _measures(
    plan: Plan,
    n: int,
    after: Result,
    classes: list[ClassChange],
    store: StateStore,
) -> dict[str, float]:
    """Return the measures by name, from the matrix, the flips and the records of the new steps."""
    before, last = after.matrix.values[n], after.matrix.values[-1]
    identities = [e.identity for e in plan.stream.experiences]
    costs = [_cost(store, key, identities) for key in plan.keys[n + 1 :]]
    samples = sum(c.samples for c in classes)

    def share(name: str) -> float:
        return float(sum(getattr(c, name) * c.samples for c in classes) / samples)

    return {
        "old_accuracy": float(last[:n].mean()),
        "old_accuracy_before": float(before[:n].mean()),
        "old_accuracy_change": float(last[:n].mean() - before[:n].mean()),
        "new_accuracy": float(last[n:].mean()),
        "new_accuracy_before": float(before[n:].mean()),
        "accuracy": float(last.mean()),
        "negative_flips": share("negative_flips"),
        "positive_flips": share("positive_flips"),
        "worst_class_change": classes[0].change,
        "seconds": sum(c.get("train_seconds", math.nan) for c in costs),
        "parameters": float(after.cost["parameters"]),
        "state_bytes": costs[-1].get("stored_bytes", math.nan),
    }


def _cost(store: StateStore, key: str, identities: Sequence[str]) -> dict[str, float]:
    """Return what a step cost: by its record, or by its state, where a later update has put another
    record in its place."""
    if cost := store.record(key, identities).cost:
        return cost
    state = store.load(key)
    return {} if state is None else {**state.cost, "stored_bytes": float(state.nbytes())}
