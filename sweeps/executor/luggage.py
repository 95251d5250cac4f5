"""Files that go to and fro with a task, where a worker's node does not share the sweep's folder.

They take the way of Ray's object store: the driver's node has the folder, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cl_platform.storage.files import exists, read_bytes, write_atomic
from cl_platform.storage.state_store import LASTING
from sweeps.planning import Run

Files = Mapping[str, bytes]
"""Contents by name, relative to the folder of the sweep."""


def needed(out: Path, runs: Iterable[tuple[Run, int]]) -> Files:
    """Return what there is of these runs up to a step each: records, predictions, and the latest
    states."""
    names: dict[str, None] = {}
    for run, upto in runs:
        keys = run.keys[: upto + 1]
        names |= dict.fromkeys(_name(key, ".json") for key in keys)
        for key in keys:  # of every evaluation
            there = (out / "states" / key[:2]).glob(f"{key}.*")
            kept = (str(path.relative_to(out)) for path in there if path.suffix in LASTING)
            names |= dict.fromkeys(kept)
        stored = (_name(key, ".pt") for key in reversed(keys))
        latest = next((name for name in stored if exists(out / name)), None)
        names |= {latest: None} if latest is not None else {}
    return _read(out, names)


def packed(folder: Path, brought: Files) -> Files:
    """Return the files in a folder that are not those that were brought there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in files]
    return {n: content for n, content in _read(folder, names).items() if brought.get(n) != content}


def unpack(folder: Path, files: Files) -> None:
    """Write files into a folder.

    Raises:
        StorageError: they cannot be written.
    """
    for name, content in files.items():
        write_atomic(folder / name, content, sync=name.endswith(".pt"))


def _read(folder: Path, names: Iterable[str]) -> Files:
    found = {}
    for name in names:
        with suppress(FileNotFoundError):
            found[name] = read_bytes(folder / name)
    return found


def _name(key: str, suffix: str) -> str:
    return f"states/{key[:2]}/{key}{suffix}"
