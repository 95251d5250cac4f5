"""Data of one's own: a door finds a source and reads it into rows; here they become a data set.

The rows of files are kept as arrays beside those of the published data sets (see
``streams.data.datasets``), under what was read: the files' names, sizes and times, and the
parameters of reading. Rows of objects stay in memory, or above the budget in a file that is gone
with the process. The fingerprint is over the arrays alone, so that it does not tell through which
door the data came.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_platform import Samples
from cl_platform.core.digests import array_digest, digest
from cl_platform.errors import BadInput, DataError, one_line, say_once
from cl_platform.storage.files import cannot, read_json
from cl_platform.storage.local import locked, replacing
from streams.data.collect import Collected, Rows
from streams.data.datasets import (
    Dataset,
    arrays_home,
    is_mapped,
    open_array,
    samples_of,
    statistics,
)
from streams.data.natural import natural

__all__ = ["Part", "Rows", "Source", "dataset_of"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "test", "validation")
MARKS = {"train": "", "test": "t", "validation": "v"}  # behind the fingerprint
READING = 1  # raise it when the same files are to be read anew


@dataclass(frozen=True, eq=False)
class Source:
    """A source of data that was found and has not been read.

    Args:
        name: what people read, such as the name of a folder.
        read: yields the rows of its parts, block by block, so that they need not fit into memory.
            The blocks of a part come in the order of its rows, among those of other parts.
        files: all files that are read; their paths, sizes and times name the arrays. None for
            objects in memory.
        reading: where they are and how they are read, as JSON holds it. Arrays of what the files
            held before are removed.
        encode: turns all texts into one array (n, ...), if there are texts.
        notes: what people are to know; `read` may add to them (``2 unreadable images left out``).
    """

    name: str
    read: Callable[[], Iterable[tuple[Part, Rows]]]
    files: Sequence[Path] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    encode: Callable[[Sequence[str]], np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)


def dataset_of(source: Source) -> Dataset:
    """Return the data set of a source, read once; without test data its test part is empty.

    Classes are sorted by name, numbers by size. Validation data without test data are the test
    data, as in published sets whose test labels are secret.

    Raises:
        DataError: the source cannot be read.
        BadInput: it has no training rows, or rows that do not fit together.
        StorageError: its arrays cannot be written.
    """
    if source.files is None:
        parts = _collect(source, lambda part: None)
        arrays, meta = _arrays(parts, source)
        mapped = any(c.inputs.in_file for c in parts.values())
        columns = _columns(parts)
    else:
        folder = _folder(source)
        meta = read_json(folder / "meta.json")
        arrays = {name: open_array(folder / f"{name}.npy", meta) for name in meta["bytes"]}
        mapped = is_mapped(meta)
        with np.load(folder / "columns.npz") as stored:
            columns = dict(stored)
    for note in meta["notes"]:
        say_once(f"{source.name}: {note}")
    return _dataset(source.name, arrays, columns, meta, mapped)


def _dataset(
    name: str,
    arrays: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    mapped: bool,
) -> Dataset:
    parts: dict[str, Samples] = {
        part: samples_of(
            arrays[f"{part}_x"], arrays[f"{part}_y"], meta["fingerprint"] + MARKS[part], mapped
        )
        for part in PARTS
        if f"{part}_x" in arrays
    }
    of_part: dict[str, dict[str, np.ndarray]] = {s.fingerprint: {} for s in parts.values()}
    for key, values in columns.items():
        part, _, column = key.partition(" ")
        of_part[parts[part].fingerprint][column] = values
    return Dataset(
        name=name,
        train=parts["train"],
        test=parts.get("test") or parts["train"].emptied(),
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]) or None,
        std=tuple(meta["std"]) or None,
        groups={},
        note=", ".join(meta["notes"]),
        validation=parts.get("validation"),
        columns=of_part,
    )


def _collect(source: Source, path_of: Callable[[Part], Path | None]) -> dict[Part, Collected]:
    """Read a source; its parts are in the order of :data:`PARTS`."""
    parts: dict[Part, Collected] = {}
    try:
        for part, rows in _blocks(source):
            if part not in parts:
                parts[part] = Collected(path_of(part))
            try:
                parts[part].add(rows)
            except BadInput as error:
                raise BadInput(f"the {part} part of {source.name}: {error}") from error
    except BaseException:
        for collected in parts.values():
            collected.inputs.close()
        raise
    if "train" not in parts or not parts["train"].labels:
        raise BadInput(f"{source.name} has no training rows")
    if "validation" in parts and "test" not in parts:
        parts["test"] = parts.pop("validation")
        source.notes.append("tested on its validation part")
    return {part: parts[part] for part in PARTS if part in parts and parts[part].labels}


def _blocks(source: Source) -> Iterator[tuple[Part, Rows]]:
    try:
        yield from source.read()
    except OSError as error:
        reason = one_line(error, 200)
        raise DataError(f"{source.name} cannot be read: {reason}") from error


def _arrays(
    parts: Mapping[Part, Collected], source: Source
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays by name, and what else there is to say of them."""
    names = sorted({label for c in parts.values() for label in c.labels}, key=natural)
    number = {name: i for i, name in enumerate(names)}
    inputs = _inputs(parts, source)
    arrays: dict[str, np.ndarray] = {}
    for part, collected in parts.items():
        arrays[f"{part}_x"] = inputs[part]
        arrays[f"{part}_y"] = np.array([number[label] for label in collected.labels], np.int64)
    meta = {
        "class_names": names,
        "fingerprint": digest(*map(array_digest, arrays.values())),
        "notes": source.notes,
        **statistics(arrays["train_x"]),
    }
    return arrays, meta


def _inputs(parts: Mapping[Part, Collected], source: Source) -> dict[Part, np.ndarray]:
    texts = [text for collected in parts.values() for text in collected.texts]
    if not texts:
        return {part: collected.inputs.array() for part, collected in parts.items()}
    if source.encode is None:
        raise BadInput(f"{source.name} holds texts, which this door cannot encode")
    encoded = source.encode(texts)  # together, so that their shapes agree
    ends = list(accumulate(len(collected.texts) for collected in parts.values()))
    return dict(zip(parts, np.split(encoded, ends[:-1]), strict=True))


def _columns(parts: Mapping[Part, Collected]) -> dict[str, np.ndarray]:
    return {f"{part} {name}": a for part, c in parts.items() for name, a in c.columns().items()}


def _folder(source: Source) -> Path:
    """Return the folder of the arrays of files, which are read if they have changed."""
    found = [_stamp(file) for file in source.files or ()]
    stem = f"own-{digest(READING, source.name, source.reading)[:16]}"
    folder = arrays_home() / f"{stem}-{digest(found)[:16]}"
    if not (folder / "meta.json").exists():
        with locked(arrays_home() / stem):
            if not (folder / "meta.json").exists():
                _write(source, folder)
            # What the files held before goes, and so does what a killed reader of it left.
            for older in (*arrays_home().glob(f"{stem}-*"), *arrays_home().glob(f".{stem}-*")):
                if older != folder:
                    shutil.rmtree(older, ignore_errors=True)
    return folder


def _stamp(file: Path) -> tuple[str, int, int]:
    """Return the path, size and time of a file; whoever reads it tells of one that is not there."""
    try:
        status = file.stat()
    except OSError:
        return str(file.absolute()), -1, -1
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def _write(source: Source, folder: Path) -> None:
    """Write the arrays of a source as one folder, which appears when it is complete."""
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            parts = _collect(source, lambda part: temporary / f"{part}.rows")
            arrays, meta = _arrays(parts, source)
            for part, collected in parts.items():
                written = collected.inputs.path
                if written and written.exists():
                    written.rename(temporary / f"{part}_x.npy")
                else:
                    np.save(temporary / f"{part}_x.npy", arrays[f"{part}_x"])
                np.save(temporary / f"{part}_y.npy", arrays[f"{part}_y"])
            np.savez(temporary / "columns.npz", **_columns(parts))  # type: ignore[arg-type]
            meta["bytes"] = {name: (temporary / f"{name}.npy").stat().st_size for name in arrays}
            (temporary / "meta.json").write_text(json.dumps(meta))
    except OSError as error:
        if not (folder / "meta.json").exists():  # else another process was first
            raise cannot("write", folder, error) from error
