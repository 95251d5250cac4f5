"""The runs in a folder, a sweep's or any other: all that a report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.config.labels import label
from cl_platform.errors import StorageError
from cl_platform.results.load import SECTIONS, as_frame, read_results
from cl_platform.results.references import compared, references_in
from cl_platform.results.result import Result
from cl_platform.storage.files import each, is_remote, location, read_json

if TYPE_CHECKING:
    import pandas as pd

Leaf = tuple[str, str, str]
SHOWN: set[Leaf] = {("seed", "", ""), ("curriculum", "explicit", "order")}


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of a folder.

    Args:
        frame: one row per run: its axes as ``axis.NAME``, scores of its order as
            ``score.CURRICULUM``, then as :func:`cl_platform.load_results`.
        results: in the order of the frame.
        sweep: the content of `sweep.json`; empty where there is no sweep.
        planned: how many runs there will be.
        errors: how many runs failed, by what they said.
    """

    folder: Path
    frame: pd.DataFrame
    results: list[Result]
    sweep: Mapping[str, Any]
    planned: int
    errors: Counter[str]

    @property
    def name(self) -> str:
        return str(self.sweep.get("name", self.folder.absolute().name))

    @property
    def running(self) -> bool:
        """True while the sweep goes on, by its record."""
        return self.sweep.get("status") == "running"


def read_runs(folder: str | Path) -> Runs:
    """Read the runs of a folder: of a sweep those of its last phase, with their points.

    Raises:
        StorageError: there is no such folder, or it holds no runs.
    """
    root = location(folder)
    sweep = _sweep(root)
    if not sweep and not is_remote(root) and root.is_dir() and not (root / "runs").is_dir():
        raise StorageError(f"{root} holds no runs: give the folder of a sweep, or an --out")
    listed = None
    if sweep:
        listed = {r["run_id"]: r["point"] for r in sweep["phases"][-1]["runs"] if r["whole"]}
    results = read_results(root, listed)
    asked = sweep["spec"].get("references", []) if sweep else []
    frame = as_frame(results, compared(results, references_in(sweep), asked))
    if listed is None:
        points = _points([result.config for result in results])
    else:
        points = [listed[result.run_id] for result in results]
    return Runs(
        root,
        _with_points(frame, points, sweep.get("scores", {})),
        results,
        sweep,
        planned=len(results) if listed is None else len(listed),
        errors=_errors(root, sweep, {result.run_id for result in results}),
    )


def _sweep(root: Path) -> dict[str, Any]:
    """Return the content of `sweep.json`; empty if there is none, or none that can be used.

    What earlier versions did not write is filled in.
    """
    data = read_json(root / "sweep.json")
    try:
        for phase in data["phases"]:
            for run in phase["runs"]:
                if not (isinstance(run["run_id"], str) and isinstance(run["point"], dict)):
                    return {}
                run.setdefault("whole", True)
            tally = phase["tally"]
            [int(tally[key]) for key in ("runs", "done", "failed", "experiences", "distinct")]
        filled = {"scores": {}, "seconds": 0.0, "chosen": [], **data}
        kinds = {"name": str, "status": str, "spec": dict, "scores": dict, "chosen": list}
        sound = all(isinstance(filled[key], kind) for key, kind in kinds.items())
        return filled if sound and data["phases"] else {}
    except (KeyError, TypeError, ValueError):
        return {}


def _errors(root: Path, sweep: Mapping[str, Any], done: Collection[str]) -> Counter[str]:
    """Count the errors of failed runs: on the sweep's record and, while it runs, in each run's."""
    runs = [run for phase in sweep.get("phases", []) for run in phase["runs"]]
    recorded = Counter(str(run["error"]) for run in runs if "error" in run)
    if sweep.get("status") != "running":
        return recorded
    left = [r["run_id"] for r in runs if r["run_id"] not in done and "error" not in r]
    found = each(root, read_json, [root / "runs" / run_id / "failed.json" for run_id in left])
    return recorded + Counter(str(data["error"]) for data in found if isinstance(data, dict))


def _with_points(
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
    """Return points for runs without a sweep: their parts by name, with the settings that vary."""
    leaves = [dict(_leaves(config)) for config in configs]
    values: dict[Leaf, list[str]] = {}
    for one in leaves:
        for leaf, value in one.items():
            values.setdefault(leaf, []).append(repr(value))
    named = Counter((s, config[s]["name"]) for config in configs for s in SECTIONS)
    shown = set(SHOWN)
    for leaf, found in values.items():
        possible = named.get(leaf[:2], len(configs))  # some may be without it
        if len({*found}) > 1 or len(found) < possible:
            shown.add(leaf)
    return [_point(one, shown) for one in leaves]


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
    """Yield settings with their leaves: (section, its plugin, key)."""
    for section, value in config.items():
        if not isinstance(value, Mapping):
            yield (section, "", ""), value
            continue
        name = str(value["name"]) if section in SECTIONS else ""
        for key, item in value.items():
            yield (section, name, key), item
