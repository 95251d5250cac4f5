"""The runs in a folder, a sweep's or any other: all that a report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.config.labels import label
from cl_platform.config.run_config import SECTIONS
from cl_platform.core.digests import digest
from cl_platform.errors import BadInput, StorageError
from cl_platform.results.load import as_frame, code_of, data_of, read_results
from cl_platform.results.references import compared, references_in
from cl_platform.results.result import Result
from cl_platform.results.sweep_record import read_failure, read_sweep
from cl_platform.storage.files import each, is_remote, location

if TYPE_CHECKING:
    import pandas as pd

Leaf = tuple[str, str, str]
SHOWN: set[Leaf] = {("seed", "", ""), ("curriculum", "explicit", "order")}


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Args:
        point: axis by axis, the seed included.
        error: what it said.
        whole: whether it was to learn its whole stream; trials may end before.
    """

    run_id: str
    point: Mapping[str, str]
    error: str
    whole: bool = True


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of a folder.

    Args:
        frame: one row per run: its axes as ``axis.NAME``, scores of its order as
            ``score.CURRICULUM``, then as :func:`cl_platform.load_results`.
        results: in the order of the frame.
        sweep: the content of `sweep.json`; empty where there is no sweep.
        planned: how many runs there will be.
        failures: the runs that failed, of all phases.
        left_out: a line on the runs of other code than what is shown; empty if there are none.
    """

    folder: Path
    frame: pd.DataFrame
    results: list[Result]
    sweep: Mapping[str, Any]
    planned: int
    failures: Sequence[Failure]
    left_out: str = ""

    @property
    def name(self) -> str:
        return str(self.sweep.get("name", self.folder.absolute().name))

    @property
    def errors(self) -> Counter[str]:
        """How many runs failed, by what they said."""
        return Counter(failure.error for failure in self.failures)

    @property
    def running(self) -> bool:
        """True while the sweep goes on, by its record."""
        return self.sweep.get("status") == "running"


def read_runs(folder: str | Path, code: str = "newest") -> Runs:
    """Read the runs of a folder: of a sweep those of its last phase, with their points.

    Args:
        code: where a folder that is no sweep's holds runs of equal settings by several versions of
            the code: ``newest`` of each settings, ``all`` in rows of their own, or those of one by
            the first digits of its digest; see :func:`cl_platform.results.load.code_of`.

    Raises:
        BadInput: no run is of that code.
        StorageError: there is no such folder, or it holds no runs.
    """
    root = location(folder)
    sweep = read_sweep(root)
    if not sweep and not is_remote(root) and root.is_dir() and not (root / "runs").is_dir():
        inside = [str(p) for p in sorted(root.iterdir()) if (p / "sweep.json").is_file()]
        which = (
            f"one of {', '.join(inside[:5])}" if inside else "the folder of a sweep, or an --out"
        )
        raise StorageError(f"{root} holds no runs: give {which}")
    listed = None
    if sweep:
        listed = {r["run_id"]: r["point"] for r in sweep["phases"][-1]["runs"] if r["whole"]}
    results, left_out = read_results(root, listed), ""
    if listed is None:
        results, left_out = _of_code(results, code)
    asked = sweep["spec"].get("references", []) if sweep else []
    frame = as_frame(results, compared(results, references_in(sweep), asked))
    if listed is None:
        points = _points(_told_apart(results))
    else:
        points = [listed[result.run_id] for result in results]
    return Runs(
        root,
        _with_points(frame, points, sweep.get("scores", {})),
        results,
        sweep,
        planned=len(results) if listed is None else len(listed),
        failures=_failures(root, sweep, {result.run_id for result in results}),
        left_out=left_out,
    )


def _of_code(results: Sequence[Result], code: str) -> tuple[list[Result], str]:
    """Return the results by the code that is asked for, with a line on the others."""
    if code == "all":
        return list(results), ""
    codes, settings = [code_of(r) for r in results], [_settings(r) for r in results]
    ended = sorted(range(len(results)), key=lambda i: results[i].ended)
    newest = {settings[i]: codes[i] for i in ended}
    if code == "newest":
        shown = [codes[i] == newest[settings[i]] for i in range(len(results))]
    else:
        shown = [one.startswith(code) for one in codes]
    found = list(compress(results, shown))
    others = Counter(one for one, is_shown in zip(codes, shown, strict=True) if not is_shown)
    listed = ", ".join(f"{count} by {other}" for other, count in others.items())
    if results and not found:
        raise BadInput(f"code={code!r}: no run is by that code; there are {listed}")
    line = f"runs by other code with equal settings are left out ({listed}); give --code all to see"
    return found, f"{line} them in rows of their own, or one of these" if others else ""


def _settings(result: Result) -> str:
    """Return what the runs of one row have in common, whose orders may be put together."""
    config = {k: v for k, v in result.config.items() if k not in ("seed", "curriculum")}
    return digest(config, data_of(result))


def _ambiguous(pairs: Iterable[tuple[str, str]]) -> set[str]:
    """Return the first members that come with several second ones."""
    counts = Counter(first for first, _ in set(pairs))
    return {first for first, count in counts.items() if count > 1}


def _told_apart(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the configurations, with the code and the data where settings do not tell them."""
    settings = [_settings(r) for r in results]
    streams = [digest(r.config["stream"]) for r in results]
    several_codes = _ambiguous(zip(settings, map(code_of, results), strict=True))
    several_data = _ambiguous(zip(streams, map(data_of, results), strict=True))
    found = []
    for result, own, stream in zip(results, settings, streams, strict=True):
        config = dict(result.config)
        if stream in several_data:
            made = f"{data_of(result)[:6]} ({len(result.experiences)} experiences)"
            config["stream"] = {**config["stream"], "data": made}
        if own in several_codes:
            config["code"] = code_of(result)
        found.append(config)
    return found


def _failures(root: Path, sweep: Mapping[str, Any], done: Collection[str]) -> list[Failure]:
    """Return the runs that failed: by the sweep's record and, while it runs, by each run's own."""
    runs = [run for phase in sweep.get("phases", []) for run in phase["runs"]]
    found = [_failure(run, run["error"]) for run in runs if "error" in run]
    if sweep.get("status") != "running":
        return found
    left = [r for r in runs if r["run_id"] not in done and "error" not in r]
    said = each(root, read_failure, [root / "runs" / run["run_id"] for run in left])
    return found + [
        _failure(run, data["error"])
        for run, data in zip(left, said, strict=True)
        if data is not None
    ]


def _failure(run: Mapping[str, Any], error: str) -> Failure:
    return Failure(run["run_id"], run["point"], error, run["whole"])


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
    named = Counter[tuple[str, str]]((s, config[s]["name"]) for config in configs for s in SECTIONS)
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
