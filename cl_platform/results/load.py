"""Many results: those under a folder, and as a data frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_platform.core.digests import digest
from cl_platform.errors import BadInput, StorageError
from cl_platform.results.references import compared, read_references
from cl_platform.results.result import Result
from cl_platform.storage.files import cannot, each, is_remote, listed, location

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_OUT = "clp-results"  # of runs


def read_results(out: str | Path, run_ids: Iterable[str] | None = None) -> list[Result]:
    """Return the results of all runs under a folder, or of those given.

    What is not there is left out, and so is what cannot be used, which is set aside.

    Raises:
        StorageError: there is no such folder.
    """
    root = location(out)
    no_folder = StorageError(f"no folder {root}: give the --out folder of finished runs")
    if not is_remote(root) and not root.is_dir():
        raise no_folder
    if run_ids is not None:
        folders = [root / "runs" / run_id for run_id in run_ids]
    elif is_remote(root):
        files = [path for _, _, path in listed(root / "runs")]
        if not files:  # nothing else makes a folder there
            raise no_folder
        folders = sorted(path.parent for path in files if path.name == "result.json")
    else:
        try:  # `glob` takes what it may not read for empty
            names = sorted(os.listdir(root / "runs"))
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise cannot("read", root / "runs", error) from error
        folders = [root / "runs" / name for name in names]
    found = each(root, lambda folder: Result.load(folder, folder.name), folders)
    return [result for result in found if result is not None]


def load_run(run: str | Path, out: str | Path = DEFAULT_OUT) -> Result:
    """Return the result of one run.

    Args:
        run: its folder, its id, or the first characters of its id.
        out: the folder of an id, the `out` of runs or a sweep.

    Raises:
        BadInput: there is no such run, or several ids begin so.
        StorageError: it cannot be read, or has not ended.
    """
    folder, name = location(run), str(run)
    if not name or (not is_remote(folder) and not folder.is_dir()):
        runs = location(out) / "runs"
        if is_remote(runs):
            names = sorted({path.parent.name for _, _, path in listed(runs)})
        else:
            names = sorted(os.listdir(runs)) if runs.is_dir() else []
        found = [n for n in names if n == name] or [n for n in names if n.startswith(name)]
        if not name or len(found) != 1:
            shown = f"{', '.join(found[:5])} begin so" if found else f"{len(names)} runs are there"
            raise BadInput(
                f"{name!r} is no folder, and no run of {runs}: {shown}; give the id of one run, "
                "its first characters, or its folder"
            )
        folder = runs / found[0]
    result = Result.load(folder if is_remote(folder) else folder.absolute())
    if result is None:
        raise BadInput(f"{folder} has no result.json: the run has not ended; run it to its end")
    return result


def load_results(out: str | Path, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """Return the results under a folder, all or those of the given runs, one row per run.

    Columns: ``run_id``, ``path``, ``scenario``, ``order``, ``ended`` (UTC), ``code`` (see
    :func:`code_of`: the same settings may have been run with several), ``data`` (a digest of the
    stream's), every metric under its name (also those
    against references where there are any, see :mod:`cl_platform.results.references`), every cost
    as ``cost.NAME`` and every setting under its dotted key (``strategy.name``).

    Raises:
        StorageError: there is no such folder.
    """
    results = read_results(out, run_ids)
    return as_frame(results, compared(results, read_references(out)))


def as_frame(results: Iterable[Result], more: Iterable[Mapping[str, float]]) -> pd.DataFrame:
    """Return results as :func:`load_results` gives them, each with more metrics."""
    import pandas as pd

    pairs = zip(results, more, strict=True)
    return pd.DataFrame([_row(result, metrics) for result, metrics in pairs])


def code_of(result: Result) -> str:
    """Return a digest (8 digits) of the code that made a result, with torch's and numpy's version.

    It covers what the keys of states cover, and the code of evaluation and metrics.
    """
    made_by = {
        name: version
        for name, version in result.versions.items()
        if name.startswith("code/") or name in ("torch", "numpy")
    }
    return digest(made_by)[:8]


def data_of(result: Result) -> str:
    """Return a digest (12 digits) of the stream as it was given, its data included."""
    return result.versions.get("data", "")


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration by dotted key."""
    return {
        f"{key}.{name}" if name else key: item
        for key, value in config.items()
        for name, item in (value.items() if isinstance(value, Mapping) else [("", value)])
    }


def _row(result: Result, more: Mapping[str, float]) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "path": str(result.path),
        "scenario": result.scenario,
        "order": tuple(result.order),
        "ended": result.ended,
        "code": code_of(result),
        "data": data_of(result),
        **result.metrics,
        **more,
        **{f"cost.{k}": v for k, v in result.cost.items()},
        **flat(result.config),
    }
