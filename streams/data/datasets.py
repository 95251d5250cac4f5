"""Data sets: read or downloaded once, then cached as plain arrays that load fast.

A data set is read from ``$CLP_DATA/<name>`` (its official files, put there by hand) or else
downloaded into ``$CLP_DATA/raw``. Its arrays are cached in ``$CLP_DATA/arrays-v1``, or, where the
data folder is read-only, in the user's cache. Sets above ``$CLP_RESIDENT_BYTES`` are memory-mapped.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_platform import Samples
from cl_platform.core.digests import array_digest, digest
from cl_platform.errors import ClpError, DataError, one_line
from cl_platform.storage.files import cannot, read_json
from cl_platform.storage.local import locked, replacing
from cl_platform.storage.paths import data_home, user_cache

if TYPE_CHECKING:
    from streams.data.formats import Arrays, D, Source

# Training samples as published. Sources are imported only where arrays are to be made.
IMAGES = {
    "digits": 1201,
    "mnist": 60000,
    "fashion-mnist": 60000,
    "kmnist": 60000,
    "cifar10": 50000,
    "cifar100": 50000,
    "omniglot": 1623 * 15,
    "tiny-imagenet": 100000,
}
TEXTS = {
    "clinc150": 15000,
    "banking77": 10003,
    "trec": 5452,
    "newsgroups20": 11314,
    "text-cl5": 5 * 115000,  # of each in d'Autume et al. 2019
    # In the order of the sets: GLUE, SuperGLUE, Maas et al. 2011 and Zhang et al. 2015.
    "text-cl15": 392702 + 250 + 5428 + 400 + 363846 + 9427 + 2490 + 25000
    + 650000 + 3000000 + 67349 + 560000 + 120000 + 27243 + 1400000,
}  # fmt: skip
DATASETS = IMAGES | TEXTS
RESIDENT_BYTES = 4 * 2**30
MEASURED_BYTES = 2**30  # of rows that are chosen anew whenever a stream is made
VERSION = "v1"  # of the arrays' layout
PARTS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for use.

    Args:
        train, test: its samples; images (N, C, H, W) uint8, or token ids (N, L) int32.
        mean, std: per channel over the training images, in units of the raw pixels; None for token
            ids.
        groups: named sets of classes that belong together.
        note: how much of the published set this is, if not all of it.
        validation: its own validation samples, if there are any.
        columns: further values of each row, by the fingerprint of the samples and by name.
    """

    name: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    groups: dict[str, list[int]]
    note: str = ""
    validation: Samples | None = None
    columns: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def column(self, name: str, samples: Samples) -> np.ndarray | None:
        """Return the values of a column at some of its samples, (n,); None without the column."""
        column = self.columns.get(samples.fingerprint, {}).get(name)
        return None if column is None else column[samples.index.numpy()]


def load_dataset(name: str, tokenizer: str | None = None, tokens: int = 64) -> Dataset:
    """Return a data set by name; see ``streams.data.sources`` and ``streams.data.text_sources``.

    Args:
        tokenizer: turns texts into token ids; see ``cl_platform.models.hub``. Without one, texts
            become counts of hashed words.
        tokens: longer texts are cut to this number, special tokens included.

    Raises:
        DataError: it is unknown or not available, or its files are damaged.
        StorageError: its arrays cannot be written.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}. Known: {', '.join(DATASETS)}")
    suffix = ""
    if tokenizer is not None:  # token ids are cached once for each tokenizer and length
        from cl_platform.models.hub import tokenizer_digest

        suffix = f"-{tokens}-{tokenizer_digest(tokenizer)[:12]}"
    folder = arrays_home() / f"{name}{suffix}"
    if not (folder / "meta.json").exists():
        _write(_arrays(name, tokenizer, tokens), folder)
    meta = read_json(folder / "meta.json")
    arrays = {part: open_array(folder / f"{part}.npy", meta) for part in PARTS}
    mapped = is_mapped(meta)
    n_train, published = len(arrays["train_y"]), DATASETS[name]
    return Dataset(
        name=name,
        train=samples_of(arrays["train_x"], arrays["train_y"], meta["fingerprint"], mapped),
        test=samples_of(arrays["test_x"], arrays["test_y"], meta["fingerprint"] + "t", mapped),
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]) or None,
        std=tuple(meta["std"]) or None,
        groups=meta["groups"],
        note="" if n_train == published else f"{n_train} of {published} training samples",
    )


def arrays_home() -> Path:
    """Return the folder of the arrays; in a read-only data folder, not even root writes."""
    home = data_home()
    if home.is_dir() and not home.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return user_cache() / f"arrays-{VERSION}-{digest(str(home.resolve()))[:8]}"
    return home / f"arrays-{VERSION}"


def samples_of(x: np.ndarray, y: np.ndarray, fingerprint: str, mapped: bool) -> Samples:
    """Return all rows of arrays as samples; nothing is copied."""
    index = torch.arange(len(y))
    return Samples(torch.from_numpy(x), index, torch.from_numpy(y), fingerprint, mapped=mapped)


def resident_bytes() -> int:
    """Return the bytes up to which the arrays of a data set are read into memory."""
    given = os.environ.get("CLP_RESIDENT_BYTES") or str(RESIDENT_BYTES)
    if not given.isdecimal():
        raise DataError(f"CLP_RESIDENT_BYTES={given}: give a whole number of bytes")
    return int(given)


def is_mapped(meta: Mapping[str, Any]) -> bool:
    """Return whether the arrays that a folder's meta data are of are memory-mapped."""
    return bool(sum(meta["bytes"].values()) > resident_bytes())


def open_array(path: Path, meta: Mapping[str, Any]) -> np.ndarray:
    """Return an array of a folder; labels are never mapped.

    Raises:
        DataError: its file is damaged.
    """
    try:
        expected = meta["bytes"][path.stem]
        found = path.stat().st_size
        if found != expected:
            raise ValueError(f"it has {found} bytes instead of {expected}")
        # "c": writable to numpy, so that torch takes it, yet never written to the file.
        mapped = is_mapped(meta) and not path.stem.endswith("_y")
        array: np.ndarray = np.load(path, mmap_mode="c" if mapped else None)
        return array
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"data file {path} cannot be read: {reason}; delete the folder {path.parent} "
            "and run again"
        ) from error


def _arrays(name: str, tokenizer: str | None, tokens: int) -> Arrays:
    """Return a data set as arrays, from local files or a download."""
    if name in IMAGES:
        from streams.data.sources import SOURCES

        if tokenizer is not None:
            raise DataError(f"tokenizer={tokenizer}: data set {name!r} has no texts; leave it out")
        return _read_or_download(name, SOURCES[name])
    from cl_platform.models.hub import token_ids
    from streams.data.text_formats import as_arrays, hashed_words
    from streams.data.text_sources import TEXT_SOURCES

    texts = _read_or_download(name, TEXT_SOURCES[name])
    if tokenizer is None:
        return as_arrays(texts, hashed_words)
    return as_arrays(texts, partial(token_ids, tokenizer=tokenizer, tokens=tokens))


def _write(arrays: Arrays, folder: Path) -> None:
    """Write the arrays as one folder, which appears when it is complete."""
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            for part in PARTS:
                np.save(temporary / f"{part}.npy", getattr(arrays, part))
            meta = {
                "class_names": arrays.class_names,
                "groups": arrays.groups,
                "fingerprint": digest(*(array_digest(getattr(arrays, part)) for part in PARTS)),
                "bytes": {part: (temporary / f"{part}.npy").stat().st_size for part in PARTS},
                **statistics(arrays.train_x),
            }
            (temporary / "meta.json").write_text(json.dumps(meta))
    except OSError as error:
        if not (folder / "meta.json").exists():  # else another process was first
            raise cannot("write", folder, error) from error


def _read_or_download(name: str, source: Source[D]) -> D:
    home = data_home()
    try:
        for folder in (home / name, home / name.replace("-", "_")):
            found = source.local(folder)
            if found is not None:
                return found
        with locked(home / "raw" / name):  # others find what the first has downloaded
            return source.download(home / "raw")
    except ClpError:
        raise
    except ImportError as error:
        raise DataError(
            f"data set {name!r} needs {error.name}; install the extra 'vision'"
        ) from error
    except Exception as error:  # every decoder and downloader has errors of its own
        raise DataError(
            f"data set {name!r} cannot be read or downloaded ({one_line(error, 200)}); "
            f"put its official files into {home / name}"
        ) from error


def statistics(x: np.ndarray, rows: np.ndarray | None = None) -> dict[str, list[float]]:
    """Return the mean and standard deviation of each channel; nothing for token ids.

    Args:
        rows: take these rows alone, (n,); of more than :data:`MEASURED_BYTES`, some evenly spaced.
    """
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        return {"mean": [], "std": []}
    if rows is None:
        rows = np.arange(len(x))
    else:
        rows = rows[:: max(1, math.ceil(len(rows) * x[:1].nbytes / MEASURED_BYTES))]
    n = len(rows) * math.prod(x.shape[2:])
    if x.dtype == np.uint8:  # whole numbers, whose sums are exact
        mean = _sum(x, rows, lambda part: part) / n
        variance = _sum(x, rows, lambda part: np.square(part, dtype=np.uint16)) / n - mean**2
    else:
        mean = _sum(x, rows, lambda part: part.astype(np.float64)) / n
        shape = (-1, *[1] * (x.ndim - 2))
        variance = _sum(x, rows, lambda part: (part - mean.reshape(shape)) ** 2) / n
    if not np.isfinite(variance).all():  # the stream tells of the rows
        return {"mean": [], "std": []}
    return {"mean": mean.tolist(), "std": np.sqrt(variance).tolist()}


def _sum(x: np.ndarray, rows: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the sum of a function over all but the channels, (C,) float64."""
    total = np.zeros(x.shape[1])
    step = max(1, 2**22 // math.prod(x.shape[1:]))
    axes = (0, *range(2, x.ndim))
    for start in range(0, len(rows), step):
        part = of(x[rows[start : start + step]])
        total += part.sum(axes, dtype=np.uint64 if x.dtype == np.uint8 else np.float64)
    return total
