"""What differs between two folders of runs: in their settings and in their results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_platform.config.labels import label
from cl_platform.errors import BadInput
from cl_platform.metrics.comparison import paired
from cl_platform.metrics.registry import Metric, find_metric
from cl_platform.results.load import code_of, data_of, load_run, read_results
from cl_platform.results.result import Result
from cl_platform.storage.files import exists, is_remote, location

MOST_VALUES = 4  # of a setting that varies are written out
MADE_BY = ("cl_platform", "python", "torch", "numpy")


@dataclass(frozen=True)
class Side:
    """The runs of one folder, together.

    Args:
        settings: by dotted key, the values that occur as text, sorted.
        metrics: by name, the finite values.
        seeds: the same by seed; empty where a seed has several runs.
    """

    path: str
    runs: int
    settings: dict[str, list[str]]
    metrics: dict[str, list[float]]
    seeds: dict[str, dict[int, float]]


@dataclass(frozen=True)
class Differences:
    """Two folders beside each other.

    Args:
        settings: what differs: (key, values in a, values in b).
        metrics: (metric, values in a, values in b), of those that both have.
        p: by metric, of the paired t test of those with two or more seeds in common; not corrected
            for the number of metrics.
    """

    a: Side
    b: Side
    settings: list[tuple[str, list[str], list[str]]]
    metrics: list[tuple[Metric, list[float], list[float]]]
    p: dict[str, float]

    @property
    def pairs(self) -> int:
        """The number of seeds that p is about; 0 where there is none."""
        shared = (self.a.seeds[n].keys() & self.b.seeds[n].keys() for n in self.p)
        return max(map(len, shared), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {
            "a": {"path": self.a.path, "runs": self.a.runs},
            "b": {"path": self.b.path, "runs": self.b.runs},
            "settings": {key: {"a": a, "b": b} for key, a, b in self.settings},
            "metrics": {
                metric.name: {
                    "a": mean_and_sd(a),
                    "b": mean_and_sd(b),
                    "difference": mean_and_sd(b)[0] - mean_and_sd(a)[0],
                    "p": self.p.get(metric.name),
                    "better": metric.direction,
                }
                for metric, a, b in self.metrics
            },
        }


def differences(a: str | Path, b: str | Path) -> Differences:
    """Compare two folders: each of one run, or of many, such as a sweep's.

    Settings are compared as the sets of their values, metrics by their means.

    Raises:
        BadInput: a folder has no run that has ended.
        StorageError: there is no such folder.
    """
    one, other = _side(a), _side(b)
    keys = dict.fromkeys([*one.settings, *other.settings])
    settings = [(k, one.settings.get(k, []), other.settings.get(k, [])) for k in keys]
    shown = [name for name in one.metrics if name in other.metrics]
    return Differences(
        one,
        other,
        [row for row in settings if {*row[1]} != {*row[2]}],
        [(find_metric(name), one.metrics[name], other.metrics[name]) for name in shown],
        dict(_paired(one, other)),
    )


def _paired(a: Side, b: Side) -> Iterable[tuple[str, float]]:
    """Yield the metrics that have a p, with it."""
    for name in a.seeds.keys() & b.seeds.keys():
        if len(a.seeds[name].keys() & b.seeds[name].keys()) > 1:
            p = paired(b.seeds[name], a.seeds[name]).p
            if math.isfinite(p):
                yield name, p


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation of a sample of two and more."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def shortened(values: Sequence[str]) -> str:
    """Return the values of a setting as text; `-` where there is none."""
    more = f", ... {len(values)} in all" if len(values) > MOST_VALUES else ""
    return ", ".join(values[:MOST_VALUES]) + more if values else "-"


def _side(path: str | Path) -> Side:
    results = _results(path)
    if not results:
        raise BadInput(f"{path} has no run that has ended: run it to its end, or give another one")
    settings: dict[str, dict[str, None]] = {}
    metrics: dict[str, list[float]] = {}
    seeds: dict[str, dict[int, float]] = {}
    for result in results:
        for key, value in _told(result):
            settings.setdefault(key, {})[label(value)] = None
        for name in result.shown_metrics():
            if math.isfinite(value := result.metrics[name]):
                metrics.setdefault(name, []).append(value)
                seeds.setdefault(name, {})[result.config["seed"]] = value
    if len({result.config["seed"] for result in results}) < len(results):
        seeds = {}
    listed = {key: sorted(values, key=_by_size) for key, values in settings.items()}
    return Side(str(path), len(results), listed, metrics, seeds)


def _by_size(value: str) -> tuple[float, str]:
    """Return what sorts numbers by size, before words."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _results(path: str | Path) -> list[Result]:
    """Return the results of a folder: of the run that it is of, or of all runs under it."""
    folder = location(path)
    if exists(folder / "result.json"):
        return [load_run(folder)]
    if not is_remote(folder) and not folder.is_dir():
        return [load_run(path)]  # an id
    return read_results(path)


def _told(result: Result) -> Iterable[tuple[str, Any]]:
    """Yield what a result depends on: settings by dotted key, versions, code and data."""
    yield from _leaves(result.config)
    for name in MADE_BY:
        yield f"version of {name}", result.versions.get(name, "unknown")
    yield "code", code_of(result)
    yield "data", data_of(result)
    yield "order", tuple(result.order)


def _leaves(value: Mapping[str, Any], where: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{where}{key}.")
        else:
            yield f"{where}{key}".removesuffix(".name"), item
