"""Data sets: found, read or downloaded once, then kept as plain arrays that load in no time.

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cl_platform import Samples
from cl_platform.core.digests import array_digest, digest
from cl_platform.errors import ClpError, DataError, one_line
from cl_platform.storage.files import cannot_write, read_json
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
KNOWN = IMAGES | TEXTS
RESIDENT_BYTES = 4 * 2**30
VERSION = "v1"  # of the arrays' layout; another one is made anew
PARTS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for use.

    Args:
        train, test: its samples; images (N, C, H, W) uint8, or token ids (N, L) int32.
        mean, std: per channel over the training images, in units of the raw pixels; None for token
            ids.
        groups: named sets of classes that belong together.
        note: says so where this is only a part of the published set.
    """

    name: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    groups: dict[str, list[int]]
    note: str = ""


def load_dataset(name: str, tokenizer: str | None = None, tokens: int = 64) -> Dataset:
    """A data set by name; see ``streams.data.sources`` and ``streams.data.text_sources``.

    Args:
        tokenizer: makes token ids of texts; see ``cl_platform.models.hub``. Without one, texts are
            counts of hashed words.
        tokens: longer texts are cut to this number, special tokens included.

    Raises:
        DataError: it is unknown, cannot be had, or its files are damaged; says what to do.
    """
    if name not in KNOWN:
        raise DataError(f"unknown data set {name!r}. Known: {', '.join(KNOWN)}")
    folder = arrays_home() / _kept_as(name, tokenizer, tokens)
    if not (folder / "meta.json").exists():
        _keep(_arrays(name, tokenizer, tokens), folder)
    meta = read_json(folder / "meta.json")
    arrays = {}
    for part in PARTS:
        arrays[part] = _open(folder / f"{part}.npy", meta)
    mapped = _is_mapped(meta)
    n_train, published = len(arrays["train_y"]), KNOWN[name]
    return Dataset(
        name=name,
        train=_samples(arrays["train_x"], arrays["train_y"], meta["fingerprint"], mapped),
        test=_samples(arrays["test_x"], arrays["test_y"], meta["fingerprint"] + "t", mapped),
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]) or None,
        std=tuple(meta["std"]) or None,
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


def _kept_as(name: str, tokenizer: str | None, tokens: int) -> str:
    """The folder of the arrays; tokens are made once for each tokenizer and length."""
    if tokenizer is None:
        return name
    from cl_platform.models.hub import tokenizer_digest

    return f"{name}-{tokens}-{tokenizer_digest(tokenizer)[:12]}"


def _arrays(name: str, tokenizer: str | None, tokens: int) -> Arrays:
    """The set, read from wherever it is to be had."""
    if name in IMAGES:
        from streams.data.sources import SOURCES

        if tokenizer is not None:
            raise DataError(f"tokenizer={tokenizer}: data set {name!r} has no texts; leave it out")
        return _obtain(name, SOURCES[name])
    from streams.data.text_formats import as_arrays, hashed_words, token_ids
    from streams.data.text_sources import TEXT_SOURCES

    texts = _obtain(name, TEXT_SOURCES[name])
    if tokenizer is None:
        return as_arrays(texts, hashed_words)
    return as_arrays(texts, partial(token_ids, tokenizer=tokenizer, tokens=tokens))


def _keep(arrays: Arrays, folder: Path) -> None:
    """Write the arrays, all or none of them."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
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


def _obtain(name: str, source: Source[D]) -> D:
    home = data_home()
    try:
        for folder in (home / name, home / name.replace("-", "_")):
            found = source.local(folder)
            if found is not None:
                return found
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


def _statistics(x: np.ndarray) -> dict[str, list[float]]:
    if x.dtype != np.uint8:  # the mean of token ids means nothing
        return {"mean": [], "std": []}
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
