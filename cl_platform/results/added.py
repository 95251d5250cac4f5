"""Metrics that are computed after runs have ended, from what they left."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_platform.config.registry import load
from cl_platform.core.json_text import NOTE
from cl_platform.errors import BadInput, StorageError, UnknownName, one_line
from cl_platform.metrics.matrix_metrics import value_of
from cl_platform.metrics.measured import measured
from cl_platform.metrics.registry import Metric, metric, metrics
from cl_platform.results.load import read_results
from cl_platform.results.result import KEY, Result
from cl_platform.storage.files import write_atomic
from cl_platform.storage.sealed import read_sealed, seal


@dataclass(frozen=True)
class Added:
    """What came of a metric that was added.

    Args:
        values: by run and name in its result; that of runs without any is empty.
        missing: a line for each value that there is not, and why.
    """

    metric: Metric
    values: dict[str, dict[str, float]]
    missing: list[str]


def add_metric(name: str, out: str | Path) -> Added:
    """Compute a metric over the finished runs of a folder, and write it into their results.

    Nothing is trained. A run has the values that it would have, had the metric been registered.

    Args:
        name: of a registered metric, ``module:function`` or ``path/to/file.py:function``.
        out: the `out` of runs or of a sweep.

    Raises:
        BadInput: there is no such metric, or it is of what results do not hold.
        StorageError: there is no such folder, or a result cannot be written.
    """
    chosen = metric_of(name)
    values: dict[str, dict[str, float]] = {}
    missing: list[str] = []
    for result in read_results(out):
        found, why = _computed(chosen, result)
        if found:
            _write(result, found)
        values[result.run_id] = found
        missing += [f"run {result.run_id}: {line}" for line in why]
    return Added(chosen, values, missing)


def metric_of(name: str) -> Metric:
    """Return the metric of a name, registered or that of a function.

    Raises:
        BadInput: there is none, or results do not hold what it is computed from.
    """
    known = metrics()
    if name not in known and ":" not in name:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(
            f"unknown metric {name!r:.100}.{hint} `clp metrics` lists them; or give "
            "module:function or path/to/file.py:function"
        )
    found = known[name] if name in known else _of_function(load("metric", name))
    if found.computed_from in ("references", "cost", "curves"):
        why = {
            "references": "it compares with other runs, which `clp report` does",
            "cost": "the engine measures it while a run goes on",
            "curves": "it is computed while a run goes on",
        }[found.computed_from]
        raise BadInput(f"metric {name!r} cannot be added: {why}; give another one")
    return found


def _of_function(function: Any) -> Metric:
    """Return the metric that a function was registered as; an undecorated one is of the matrix."""
    if all(m.function is not function for m in metrics().values()):
        metric()(function)
    return next(m for m in metrics().values() if m.function is function)


def _computed(chosen: Metric, result: Result) -> tuple[dict[str, float], Sequence[str]]:
    """Return the values of a metric for a run, with a line for each that there is not."""
    raised: list[str] = []

    def value(metric: Metric, given: Any) -> float:
        try:
            return value_of(metric, given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a user's metric raises
            raised.append(f"{metric.name} is not there: {one_line(error, 300)}")
            return math.nan

    found = measured(result.measurements(), chosen, value)
    if raised:
        return found, list(dict.fromkeys(raised))
    if undefined := [name for name, v in found.items() if math.isnan(v)]:
        return found, [f"{name} is undefined for it" for name in undefined]
    if found:
        return found, []
    if chosen.computed_from == "predictions" and any(result.kept):
        return found, [f"{chosen.name} is undefined for what was kept of its predictions"]
    lacks = {"predictions": "no predictions were kept", "curve": "it has no curve"}
    return found, [f"{chosen.name} is not there: {lacks.get(chosen.computed_from, 'no data')}"]


def _write(result: Result, values: dict[str, float]) -> None:
    """Write metrics into a result's document, and leave the rest of it as it is."""
    assert result.path is not None
    path = result.path / "result.json"
    document = read_sealed(path, KEY, dict)
    if document is None:
        raise StorageError(f"{path} is not there any more; run it again")
    notes = {k: v for k, v in document.get(NOTE, {}).items() if k[8:] not in values}
    document[NOTE] = notes
    document["metrics"] = {**document["metrics"], **values}
    write_atomic(path, seal(KEY, {k: v for k, v in document.items() if k != NOTE or v}))
