"""Many results: the documents under a folder, and as a data frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from cl_platform.errors import StorageError
from cl_platform.files import each, is_remote, listed, location, read_json
from cl_platform.references import compared, read_references

if TYPE_CHECKING:
    import pandas as pd

PARTS = {
    "run_id", "config", "stream", "scenario", "order", "experiences", "matrix", "metrics", "cost"
}  # fmt: skip


def read_documents(
    out: str | Path, run_ids: Iterable[str] | None = None
) -> dict[Path, dict[str, Any]]:
    """The content of `result.json` by the run's folder, of all runs under `out` or of those given.

    What is not there, or not readable, is left out.

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
        folders = [path.parent for path in sorted(root.glob("runs/*/result.json"))]
    found = each(root, lambda folder: read_json(folder / "result.json"), folders)
    return {path: data for path, data in zip(folders, found, strict=True) if _is_result(data)}


def load_results(out: str | Path, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The results under a folder, all or those of the given runs, one row per run.

    Columns: ``run_id``, ``path``, ``scenario``, ``order``, every metric under its name (also those
    against references where there are any, see :mod:`cl_platform.references`), every cost as
    ``cost.NAME`` and every setting under its dotted key (``strategy.name``).

    Raises:
        StorageError: there is no such folder.
    """
    documents = read_documents(out, run_ids)
    return as_frame(documents, compared(list(documents.values()), read_references(out)))


def as_frame(
    documents: Mapping[Path, Mapping[str, Any]], more: Iterable[Mapping[str, float]]
) -> pd.DataFrame:
    """What :func:`read_documents` found as :func:`load_results` gives it, with more metrics."""
    import pandas as pd

    rows = zip(documents.items(), more, strict=True)
    return pd.DataFrame([_flat(data, path, metrics) for (path, data), metrics in rows])


def _is_result(data: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON document has the parts of a result; it may be by another version."""
    mappings = ("config", "matrix", "metrics", "cost")
    return (
        isinstance(data, dict)
        and data.keys() >= PARTS
        and all(isinstance(data[part], dict) for part in mappings)
    )


def _flat(data: Mapping[str, Any], path: Path, more: Mapping[str, float]) -> dict[str, Any]:
    metrics = {**data["metrics"], **more}.items()
    row: dict[str, Any] = {
        "run_id": data["run_id"],
        "path": str(path),
        "scenario": data["scenario"],
        "order": tuple(data["order"]),
        **{k: float("nan") if v is None else v for k, v in metrics},
        **{f"cost.{k}": v for k, v in data["cost"].items()},
    }
    for key, value in data["config"].items():
        if isinstance(value, dict):
            row.update({f"{key}.{name}": v for name, v in value.items()})
        else:
            row[key] = value
    return row
