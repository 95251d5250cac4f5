"""What a folder of runs, or of a sweep, holds: all that a report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.files import location, read_json
from cl_platform.references import compared, read_references
from cl_platform.report.points import label
from cl_platform.results import as_frame, read_documents

if TYPE_CHECKING:
    import pandas as pd

SECTIONS = ("stream", "strategy", "curriculum", "model")
Leaf = tuple[str, str, str]
SHOWN: set[Leaf] = {("seed", "", ""), ("curriculum", "explicit", "order")}


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of a folder.

    Args:
        frame: one row per run: its axes as ``axis.NAME``, scores of its order as
            ``score.CURRICULUM``, then as :func:`cl_platform.load_results`.
        documents: `result.json` of each, in the order of the frame.
        sweep: the content of `sweep.json`; empty where there is no sweep.
    """

    folder: Path
    frame: pd.DataFrame
    documents: list[dict[str, Any]]
    sweep: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.sweep.get("name", self.folder.name))

    @property
    def running(self) -> bool:
        """Whether the sweep says that it still goes on."""
        return self.sweep.get("status") == "running"

    @property
    def errors(self) -> Counter[str]:
        """How many runs failed with each error."""
        phases = self.sweep.get("phases", [])
        return Counter(r["error"] for phase in phases for r in phase["runs"] if "error" in r)


def read_runs(folder: str | Path) -> Runs:
    """The runs of a folder: of a sweep those of its last phase, with the points it gave them.

    Raises:
        StorageError: there is no such folder.
    """
    root = location(folder)
    sweep = read_json(root / "sweep.json")
    sweep = sweep if isinstance(sweep, dict) and sweep.get("phases") else {}
    listed = None
    if sweep:
        listed = {
            r["run_id"]: r["point"] for r in sweep["phases"][-1]["runs"] if r.get("whole", True)
        }
    found = read_documents(root, listed)
    documents = list(found.values())
    if listed is None:
        points = _points([data["config"] for data in documents])
    else:
        points = [listed[data["run_id"]] for data in documents]
    asked = sweep["spec"].get("references", []) if sweep else []
    results = as_frame(found, compared(documents, read_references(root), asked))
    return Runs(root, _frame(results, points, sweep.get("scores", {})), documents, sweep)


def _frame(
    results: pd.DataFrame,
    points: Iterable[Mapping[str, str]],
    scores: Mapping[str, Mapping[str, float]],
) -> pd.DataFrame:
    import pandas as pd

    if results.empty:
        return results
    axes = pd.DataFrame([{f"axis.{k}": v for k, v in point.items()} for point in points])
    frame = pd.concat([results[["run_id"]], axes, results.drop(columns="run_id")], axis=1)
    for name, values in scores.items():
        frame[f"score.{name}"] = frame["run_id"].map(values)
    return frame


def _points(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Points of runs that no sweep gave any: their parts by name, with the settings that vary."""
    leaves = [dict(_leaves(config)) for config in configs]
    values: dict[Leaf, set[str]] = {}
    for each in leaves:
        for leaf, value in each.items():
            values.setdefault(leaf, set()).add(repr(value))
    shown = {leaf for leaf, found in values.items() if len(found) > 1} | SHOWN
    return [_point(each, shown) for each in leaves]


def _point(leaves: Mapping[Leaf, Any], shown: Collection[Leaf]) -> dict[str, str]:
    parts: dict[str, Any] = {}
    for (section, name, key), value in leaves.items():
        if section in SECTIONS:
            part = parts.setdefault(section, {"name": name})
            if (section, name, key) in shown:
                part[key] = value
        elif (section, name, key) in shown:
            parts[f"{section}.{key}" if key else section] = value
    return {key: label(value) for key, value in parts.items()}


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[Leaf, Any]]:
    """Settings as (section, its plugin, key)."""
    for section, value in config.items():
        if not isinstance(value, Mapping):
            yield (section, "", ""), value
            continue
        name = str(value["name"]) if section in SECTIONS else ""
        for key, item in value.items():
            yield (section, name, key), item
