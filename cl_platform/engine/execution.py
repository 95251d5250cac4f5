"""From a plan to a result: the records of a run, and what is computed from them."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cl_platform._version import __version__
from cl_platform.config.command import command_of
from cl_platform.config.given import is_given
from cl_platform.config.process import process_restored
from cl_platform.config.signatures import names_in
from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.matrix import MASKS, OWN_MASK, AccuracyMatrix, Mask, chances
from cl_platform.core.order.teacher import Visit
from cl_platform.core.predictions import Keeping
from cl_platform.engine.fold import Fold
from cl_platform.engine.measures.measuring import PROBE, asked
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import TRAINING
from cl_platform.engine.teaching import following
from cl_platform.errors import ClpError
from cl_platform.metrics.measured import Measurements, measured
from cl_platform.metrics.stability_gap import Curves
from cl_platform.parallel.launch import team_of
from cl_platform.parallel.team import Team
from cl_platform.results.load import DEFAULT_OUT as DEFAULT_OUT
from cl_platform.results.result import Result
from cl_platform.storage.files import location, read_json, write_json
from cl_platform.storage.state_store import (
    CHECKPOINT_MINUTES,
    PREDICTION_BUDGET_MB,
    Keep,
    Record,
    StateStore,
)
from cl_platform.tracking.sinks import EventLog, Sink, Trackers

# Costs of which a run has that of its largest state.
LARGEST = (
    *("peak_memory_bytes", "parameters", "trainable_parameters"),
    *("stored_bytes", "memory_bytes"),
)

T = TypeVar("T")


def execute(
    plan: Plan,
    out: str | Path | None = DEFAULT_OUT,
    *,
    sinks: Sequence[Sink] = (),
    keep: Keep = "all",
    budget: int = 20 * 2**30,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    predictions: Keeping = "top",
    prediction_budget_mb: float = PREDICTION_BUDGET_MB,
    store: StateStore | None = None,
) -> Result:
    """Carry out a plan, or return the finished result that is already there.

    Args:
        out: folder of records and states, or an address such as ``s3://bucket/folder``; None keeps
            nothing.
        sinks: told of every event; see :mod:`cl_platform.tracking.sinks`.
        keep, budget, checkpoint_minutes, predictions, prediction_budget_mb: which states,
            checkpoints and predictions are kept; see
            :class:`cl_platform.storage.state_store.StateStore`. They change no bits of the run.
        store: one that the caller holds already, instead of one in `out`.

    Raises:
        BadInput: `out` is an address that nothing serves.
        RunFailed: training went wrong.
        StorageError: `out` cannot be written.
    """
    root = location(out).absolute() if out is not None else None  # a strategy may change directory
    with _restoring(plan):
        states = root / "states" if root is not None else None
        own = StateStore(
            states,
            keep,
            budget,
            checkpoint_minutes=checkpoint_minutes,
            predictions=predictions,
            prediction_budget=prediction_budget_mb * 1e6,
        )
        with team_of(plan) as team:
            return _execute(plan, root, Trackers(sinks), own, store, team)


def _execute(
    plan: Plan,
    root: Path | None,
    trackers: Trackers,
    own: StateStore,
    store: StateStore | None,
    team: Team | None,
) -> Result:
    folder = root / "runs" / plan.run_id if root is not None else None
    config = plan.config.model_dump(mode="json")
    result = Result.load(folder, plan.run_id, config) if folder is not None else None
    fold = None
    if result is not None:
        result = _with_predictions(plan, result, store or own)
    else:  # what a strategy's setup refuses is refused before anything is written
        fold = Fold(plan, store or own, trackers, team)
    try:
        if folder is not None and fold is not None:
            write_json(folder / "config.json", config, sync=False)  # the result has it too
            trackers.sinks.append(EventLog(folder / "events.jsonl"))
            if own.folder is not None and store is None:
                report_origin(own.folder, plan)
        known: dict[str, Any] = {"labels": [*plan.labels]}
        if plan.teacher:
            known["teacher"] = True
        if plan.config.evaluate != 1:
            known["rows"] = plan.rows(len(plan.steps))
        trackers.emit("start", **_introduction(plan), **known)
        if fold is not None:
            records = fold.run()
            result = result_of(following(plan, fold.plan.visits), records, folder, fold)
            if folder is not None:
                result.save(folder)
        assert result is not None
        trackers.emit("end", result=result.to_json(), reused=fold is None)
        return result
    except ClpError as error:
        trackers.emit("failed", error=str(error))
        raise
    finally:
        trackers.close()


def _with_predictions(plan: Plan, result: Result, store: StateStore) -> Result:
    """Return a finished result with the predictions that it was made without, as far as its states
    are stored."""
    wanted, kept = store.predictions, [address for address in result.kept if address]
    enough = bool(kept) and (
        wanted == "top" or all(store.holds_predictions(address, wanted) for address in kept)
    )
    if wanted == "none" or enough or result.path is None or store.folder is None:
        return result
    plan = following(plan, [Visit(*visit) for visit in result.visits])
    fold = Fold(plan, store, Trackers())
    if not fold.is_done:
        return result
    again = result_of(plan, fold.run(), result.path, fold)
    metrics = {**result.metrics, **again.metrics}
    if again.kept == result.kept and metrics.keys() == result.metrics.keys():
        return result
    again = replace(again, metrics=metrics, ended=result.ended)
    again.save(result.path)
    return again


def report_origin(states: Path, plan: Plan) -> None:
    """Print a line if the states of a folder were made by other versions or code than the plan's.

    They have other keys and stay unused, and what a run needs is trained again. The folder notes
    who made its states in `origin.json`.
    """
    libraries = {"torch": torch.__version__, "numpy": np.__version__}
    strategy = " ".join(names_in(plan.config.strategy))
    now = {
        **libraries,
        "the training loop": kernel_digest(*TRAINING),
        f"strategy {strategy}": plan.code["strategy"],
        f"model {json.dumps(plan.config.model)}": plan.code["model"],  # and its weights
    }
    noted = read_json(states / "origin.json")
    before = noted if isinstance(noted, dict) else {}
    before = {name: value for name, value in before.items() if isinstance(value, str)}
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    upgraded = [f"{n} {before[n]} (now {now[n]})" for n in changed if n in libraries]
    if changed:
        reasons = upgraded or [f"other code of {name}" for name in changed]
        print(
            f"{states}: earlier states were made with {' and '.join(reasons)}; they are not "
            "reused, and what is needed is trained again",
            file=sys.stderr,
        )
    if now.items() - before.items():  # an upgrade changes the digests of all code
        write_json(states / "origin.json", {**({} if upgraded else before), **now})


def advance(plan: Plan, store: StateStore, upto: int) -> dict[str, float]:
    """Carry a run through its first `upto` experiences and no further; nothing but states and
    records is written.

    Returns:
        The metrics, under the same names, of the stream that ends there; none for `upto` 0.

    Raises:
        RunFailed, StorageError: see :func:`execute`.
    """
    upto = min(upto, len(plan.stream))
    with _restoring(plan), team_of(plan) as team:
        records = Fold(plan, store, Trackers(), team).run(min(upto, len(plan.steps)))
        return _metrics(plan, records, upto) if upto else {}


@contextmanager
def _restoring(plan: Plan) -> Iterator[None]:
    """Put back what a run changes of its process; print a line about what cannot be put back."""
    left: list[str] = []
    try:
        with process_restored() as left:
            yield
    finally:
        if left:
            print(
                f"run {plan.run_id} changed what cannot be put back: {', '.join(left)}; make other "
                "runs in a new process",
                file=sys.stderr,
            )


def _introduction(plan: Plan) -> dict[str, Any]:
    config = plan.config.model_dump(mode="json")
    given = {label: c for c, label in enumerate(plan.labels)}
    held_out = {*plan.stream.held_out}
    return {
        "run_id": plan.run_id,
        "config": config,
        "stream": plan.stream.name,
        "scenario": plan.stream.scenario,
        "order": list(plan.order),
        "experiences": [
            {
                "name": e.name,
                "identity": e.identity,
                "task": e.task,
                "classes": sorted(given[c] for c in e.classes),  # as the stream numbers them
                "test_samples": len(e.test),
                **({"held_out": True} if i in held_out else {}),
            }
            for i, e in enumerate(plan.stream.scored)
        ],
        "visits": visits_of(plan),
        "command": command_of(config) if _is_named(plan) else None,
    }


def _is_named(plan: Plan) -> bool:
    """Return whether another process finds all parts of a plan by their names."""
    config = plan.config
    sections = [config.stream, config.strategy, config.curriculum, config.model]
    sections += [*(config.augmentation or []), *([config.pacing] if config.pacing else [])]
    names = [name for section in sections for name in names_in(section)]
    return "stream" not in plan.objects and not any(
        name.startswith("__main__:") or "<" in name or is_given(name) for name in names
    )


def result_of(
    plan: Plan, records: list[Record], folder: Path | None, fold: Fold | None = None
) -> Result:
    """Return the result of a run that has ended, from the records of its states.

    Args:
        fold: that ended, with the predictions of its states.
    """
    n = len(plan.visits) or len(plan.stream)
    matrices = _matrices(plan, records, n)
    by_class = np.array([r.class_accuracy for r in _by_row(plan, records, n)], np.float64)
    kept = _by_row(plan, [*map(fold.predictions.address, range(len(records)))], n) if fold else []
    curves = _curves(plan, records, n)
    result = Result(
        **_introduction(plan),
        matrices=matrices["test"],
        validation=matrices.get("validation", {}),
        metrics={},
        cost=_cost(records),
        versions=versions(plan),
        ended=datetime.now(UTC).isoformat(),
        path=folder,
        calibration=_calibration(plan, records, n),
        class_accuracy=by_class[:, list(plan.labels)],  # as the stream numbers them
        anytime=_anytime(records),
        anytime_by_experience=curves.values,
        plasticity=_plasticity(plan, records, n),
        probes=_probes(plan, records, n),
        rows=plan.rows(n) if plan.config.evaluate != 1 else [],
        kept=kept if any(kept) else [],
        labels=[] if plan.labels == (*range(len(plan.labels)),) else [*plan.labels],
        memory=fold.predictions.packed if fold else {},
    )
    measurements = replace(result.measurements(), curves=curves if result.anytime else None)
    metrics = measured(measurements)
    if (
        folder is not None
        and fold is not None
        and fold.store.folder == folder.parents[1] / "states"
    ):
        result = replace(result, memory={})  # they are in files
    return replace(result, metrics=metrics)


def visits_of(plan: Plan) -> list[list[int]]:
    """Return the column and the training samples of each step where one column does not follow the
    other; else nothing."""
    if plan.teacher is not None:
        return [[*visit] for visit in plan.visits]
    if plan.stream.visits == tuple(range(len(plan.stream))):
        return []
    sizes = [len(e.train) for e in plan.stream.experiences]
    return [[*visit] for visit in zip(plan.stream.visits, sizes, strict=True)]


def _metrics(plan: Plan, records: list[Record], n: int) -> dict[str, float]:
    own, matrices = OWN_MASK[plan.stream.scenario], _matrices(plan, records, n)
    curve = _anytime(records)
    return measured(
        Measurements(
            own,
            matrices,
            _calibration(plan, records, n),
            curve,
            probes=_probes(plan, records, n),
            curves=_curves(plan, records, n) if curve else None,
            states=_plasticity(plan, records, n),
        )
    )


def _matrices(plan: Plan, records: list[Record], n: int) -> dict[str, dict[str, AccuracyMatrix]]:
    """Return the matrices of the first n steps by split and mask."""
    rows = [record.rows for record in _by_row(plan, records, n)]
    return {
        split: {
            mask: _matrix(plan, [row[split][mask] for row in rows], n, mask)
            for mask in MASKS
            if mask in masks
        }
        for split, masks in rows[0].items()
    }


def _calibration(plan: Plan, records: list[Record], n: int) -> AccuracyMatrix:
    """Return the calibration errors of the first n steps."""
    return _matrix(plan, [record.calibration for record in _by_row(plan, records, n)], n)


def _matrix(
    plan: Plan, rows: Sequence[Mapping[str, float | None]], n: int, mask: Mask | None = None
) -> AccuracyMatrix:
    """Build a matrix of its rows for the first n steps; of fewer than all, it has the columns that
    they learned."""
    stream = plan.stream
    visits = [v.experience for v in plan.visits] or [*stream.visits[:n]]
    columns, held_out = stream.scored, stream.held_out
    if n < (len(plan.visits) or len(stream)):
        columns, held_out = columns[: max(visits) + 1], ()
    return AccuracyMatrix.from_rows(
        rows,
        [e.identity for e in columns],
        [e.name for e in columns],
        visits,
        rows=plan.rows(n),
        held_out=held_out,
        sizes=tuple(len(e.test) for e in columns),
        chances=chances(mask, [e.classes for e in columns], stream.n_classes, held_out)
        if mask
        else (),
    )


def _by_row(plan: Plan, records: Sequence[T], n: int) -> list[T]:
    """Return the record, or what else there is of each state, of each row of a matrix of n steps.

    A strategy that trains once on the whole stream has two: the second stands for all.
    """
    return [records[min(k, len(records) - 1)] for k in plan.rows(n)]


def _anytime(records: list[Record]) -> list[list[float]]:
    """Return the accuracy measured during the whole run, by the samples shown until then."""
    curve: list[list[float]] = []
    before = 0.0
    for record in records:
        curve += [[before + samples, accuracy] for samples, accuracy, *_ in record.anytime]
        before += record.cost.get("samples", 0)
    return curve


def _curves(plan: Plan, records: list[Record], n: int) -> Curves:
    """Return the accuracies during the first n steps, on what the columns of their matrix are."""
    tasks = [e.task for e in plan.stream.scored][: len(_calibration(plan, records, n))]
    values, old = [], []
    learned: set[int] = set()
    for step, record in zip(plan.steps, records[1:], strict=False):
        now = {e.task for e in step.sources}
        before = learned - (now if now <= learned else set())  # it may be one that comes again
        learned |= now
        for _, _, *found in record.anytime:
            row = dict(zip(sorted(learned), found, strict=True))
            values.append([row.get(task, math.nan) for task in tasks])
            old.append([task in before for task in tasks])
    return Curves(np.array(values), np.array(old))


def _probes(plan: Plan, records: list[Record], n: int) -> AccuracyMatrix | None:
    """Return the accuracies of probes, nan for columns without; None if none was asked for."""
    if PROBE not in plan.measures:
        return None
    nothing = dict.fromkeys(e.identity for e in plan.stream.scored)
    rows = [{**nothing, **record.measured[PROBE]} for record in _by_row(plan, records, n)]
    return _matrix(plan, rows, n, "task")


def _plasticity(plan: Plan, records: list[Record], n: int) -> dict[str, list[float | None]]:
    """Return what was measured of each row besides accuracies, by name."""
    rows = [asked(record.measured, plan.measures) for record in _by_row(plan, records, n)]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain(*rows))}


def _cost(records: list[Record]) -> dict[str, float]:
    def total(name: str) -> float:
        return sum(r.cost.get(name, 0.0) for r in records)

    cost = {name: total(name) for name in ("train_seconds", "eval_seconds")}
    cost = {"seconds": sum(cost.values()), **cost}
    cost |= {name: int(total(name)) for name in ("steps", "samples")}
    for name in LARGEST:
        cost[name] = int(max(r.cost.get(name, 0.0) for r in records))
    if any("threads" in r.cost for r in records):
        cost["threads"] = int(max(r.cost.get("threads", 0.0) for r in records))
    if any("flops" in r.cost for r in records):
        cost["flops"] = int(total("flops"))
    if any("energy_joules" in r.cost for r in records):
        cost["energy_joules"] = total("energy_joules")
    if any("compiled_steps" in r.cost for r in records):
        cost["compiled_steps"] = int(total("compiled_steps"))
    if any("epochs" in r.cost for r in records):  # which early stopping decides
        cost["epochs"] = int(total("epochs"))
    return cost


def versions(plan: Plan) -> dict[str, str]:
    """Return what a result depends on; code and data by the first digits of their digests."""
    return {
        "cl_platform": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **{f"code/{part}": d[:12] for part, d in plan.code.items()},
        "code/evaluation": plan.scored[:12],
        "data": plan.data[:12],
    }
