"""Image data sets: found, read or downloaded once, then kept as plain arrays that load in no time.

A data set is looked for in ``$CLP_DATA/<name>`` (its official files, put there by hand) and else
downloaded into ``$CLP_DATA/raw``. Its arrays are kept in ``$CLP_DATA/arrays-v1``, or, where that
folder is read-only, in the user's cache. Sets above ``$CLP_RESIDENT_BYTES`` are memory-mapped.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cl_platform import Samples
from cl_platform.data_home import data_home, user_cache
from cl_platform.errors import ClpError, DataError
from cl_platform.files import cannot_write, read_json
from cl_platform.identity import array_digest, digest
from streams.formats import Arrays
from streams.sources import SOURCES

RESIDENT_BYTES = 4 * 2**30
VERSION = "v1"  # of the arrays' layout; another one is made anew
PARTS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for use.

    Args:
        train, test: its samples; images (N, C, H, W) uint8.
        mean, std: per channel over the training images, in units of the raw pixels.
        groups: named sets of classes that belong together.
        note: says so where this is only a part of the published set.
    """

    name: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    groups: dict[str, list[int]]
    note: str = ""


def load_dataset(name: str) -> Dataset:
    """A data set by name; see ``streams.sources``.

    Raises:
        DataError: it is unknown, cannot be had, or its files are damaged; says what to do.
    """
    if name not in SOURCES:
        raise DataError(f"unknown data set {name!r}. Known: {', '.join(SOURCES)}")
    folder = arrays_home() / name
    if not (folder / "meta.json").exists():
        _prepare(name, folder)
    meta = read_json(folder / "meta.json")
    arrays = {}
    for part in PARTS:
        arrays[part] = _open(folder / f"{part}.npy", meta)
    mapped = _is_mapped(meta)
    n_train, published = len(arrays["train_y"]), SOURCES[name].n_train
    return Dataset(
        name=name,
        train=_samples(arrays["train_x"], arrays["train_y"], meta["fingerprint"], mapped),
        test=_samples(arrays["test_x"], arrays["test_y"], meta["fingerprint"] + "t", mapped),
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        groups=meta["groups"],
        note="" if n_train == published else f"{n_train} of {published} training samples",
    )


def arrays_home() -> Path:
    """Where arrays are kept; a data folder marked read-only is left alone, by root as well."""
    home = data_home()
    if home.is_dir() and not home.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return user_cache() / f"arrays-{VERSION}-{digest(str(home.resolve()))[:8]}"
    return home / f"arrays-{VERSION}"


def _samples(x: np.ndarray, y: np.ndarray, fingerprint: str, mapped: bool) -> Samples:
    index = torch.arange(len(y))
    return Samples(torch.from_numpy(x), index, torch.from_numpy(y), fingerprint, mapped=mapped)


def _is_mapped(meta: dict) -> bool:  # type: ignore[type-arg]
    given = os.environ.get("CLP_RESIDENT_BYTES") or str(RESIDENT_BYTES)
    if not given.isdecimal():
        raise DataError(f"CLP_RESIDENT_BYTES={given}: give a whole number of bytes")
    return bool(sum(meta["bytes"].values()) > int(given))


def _open(path: Path, meta: dict) -> np.ndarray:  # type: ignore[type-arg]
    try:
        expected = meta["bytes"][path.stem]
        found = path.stat().st_size
        if found != expected:
            raise ValueError(f"it has {found} bytes instead of {expected}")
        # "c": writable to numpy, so that torch takes it, yet never written to the file.
        labels = path.stem.endswith("_y")
        array: np.ndarray = np.load(
            path, mmap_mode="c" if _is_mapped(meta) and not labels else None
        )
        return array
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"data file {path} cannot be read: {reason}; delete the folder {path.parent} "
            "and run again"
        ) from error


def _prepare(name: str, folder: Path) -> None:
    """Read the set from wherever it is to be had and keep its arrays, all or none of them."""
    arrays = _obtain(name)
    temporary = folder.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        for part in PARTS:
            np.save(temporary / f"{part}.npy", getattr(arrays, part))
        meta = {
            "class_names": arrays.class_names,
            "groups": arrays.groups,
            "fingerprint": digest(*(array_digest(getattr(arrays, part)) for part in PARTS)),
            "bytes": {part: (temporary / f"{part}.npy").stat().st_size for part in PARTS},
            **_statistics(arrays.train_x),
        }
        (temporary / "meta.json").write_text(json.dumps(meta))
        temporary.replace(folder)
    except OSError as error:
        if not (folder / "meta.json").exists():  # else another process was faster
            raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _obtain(name: str) -> Arrays:
    home, source = data_home(), SOURCES[name]
    try:
        for folder in (home / name, home / name.replace("-", "_")):
            arrays = source.local(folder)
            if arrays is not None:
                return arrays
        return source.download(home / "raw")
    except ClpError:
        raise
    except ImportError as error:
        raise DataError(
            f"data set {name!r} needs {error.name}; install the extra 'vision'"
        ) from error
    except Exception as error:  # every decoder and downloader has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"data set {name!r} cannot be read or downloaded ({reason}); "
            f"put its official files into {home / name}"
        ) from error


def _statistics(x: np.ndarray) -> dict[str, list[float]]:
    total = np.zeros(x.shape[1])
    squares = np.zeros(x.shape[1])
    for start in range(0, len(x), 4096):
        part = x[start : start + 4096].astype(np.float64)
        total += part.sum((0, 2, 3))
        squares += (part**2).sum((0, 2, 3))
    n = len(x) * x.shape[2] * x.shape[3]
    mean = total / n
    std = np.sqrt(squares / n - mean**2)
    return {"mean": mean.tolist(), "std": std.tolist()}
