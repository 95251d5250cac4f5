"""Which stream a source stands for: by its registered name, or by what lies at its path."""

from __future__ import annotations

from pathlib import Path

from cl_platform.config.registry import plugins, suggestion
from cl_platform.config.signatures import Section
from cl_platform.errors import BadInput, UnknownName
from streams.data.tables import ENDINGS as TABLES, ending
from streams.folder import IMAGES

ARRAYS = (".npz", ".npy", ".pt", ".pth")
SAVED = ("dataset_dict.json", "dataset_info.json")  # written by save_to_disk of `datasets`
PATHS = (
    "images in class folders, a table (.csv, .tsv, .jsonl, .parquet), arrays (.npz, .npy, .pt), "
    "a saved datasets folder"
)


def section_of(source: str) -> Section:
    """Return the section of a stream, ``{"name": ..., ...}``, for what a person calls a source.

    Args:
        source: a registered stream, ``module:Name`` or ``file.py:Name``; ``hub:NAME`` for a data
            set on the Hugging Face hub; or a path to images in class folders, a table, arrays, or a
            saved data set.

    Raises:
        UnknownName: it is neither a stream nor a path.
        BadInput: what lies at the path is none of these.
    """
    if source in plugins("stream"):
        return {"name": source}
    kind, colon, rest = source.partition(":")
    if kind == "hub" and colon:
        return {"name": "hub", "path": rest}
    path = Path(source).expanduser()
    if path.exists():
        return {"name": _door(path), "path": source}
    if colon:
        return {"name": source}
    if "/" in source or path.suffix:
        raise BadInput(f"there is nothing at {source}: give {PATHS}, or hub:NAME")
    near, _, _ = suggestion(source, plugins("stream")).partition(" Known:")
    raise UnknownName(
        f"{source!r} is no stream and no file.{near} Give a name of `clp list streams`, {PATHS}, "
        "or hub:NAME"
    )


def _door(path: Path) -> str:
    """Return the name of the stream that reads what lies at a path."""
    if path.is_file():
        if ending(path) in TABLES:
            return "table"
        if path.suffix.lower() in ARRAYS:
            return "arrays"
        raise BadInput(f"{path} is no data that can be read: give {PATHS}")
    if any((path / name).is_file() for name in SAVED):
        return "hub"
    files = (file for depth in ("*/*", "*/*/*") for file in path.glob(depth))  # train/CLASS/image
    if any(file.suffix.lower() in IMAGES for file in files):
        return "folder"
    if any(ending(file) in TABLES for file in path.iterdir()):
        return "table"
    raise BadInput(f"{path} holds no data that can be read: give {PATHS}")
