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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cl_platform import Samples
from cl_platform.errors import ClpError, DataError
from cl_platform.files import cannot_write, read_json
from cl_platform.identity import array_digest, digest
from streams.formats import (
    Arrays,
    read_cifar_pickles,
    read_idx,
    read_omniglot_bits,
    read_omniglot_folders,
    read_sheets,
    read_tiny_imagenet,
    shrink_omniglot,
    unpickle,
)

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


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Args:
        local: reads official files from the set's own folder, or returns None without them.
        download: fetches them into a folder and reads them.
        n_train: size of the published training set.
    """

    local: Callable[[Path], Arrays | None]
    download: Callable[[Path], Arrays]
    n_train: int


def load_dataset(name: str) -> Dataset:
    """A data set by name; see ``SOURCES``.

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


def data_home() -> Path:
    """The data folder: ``$CLP_DATA``, else the user's cache."""
    return Path(os.environ.get("CLP_DATA") or _user_cache()).expanduser()


def arrays_home() -> Path:
    """Where arrays are kept; a data folder marked read-only is left alone, by root as well."""
    home = data_home()
    if home.is_dir() and not home.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return _user_cache() / f"arrays-{VERSION}-{digest(str(home.resolve()))[:8]}"
    return home / f"arrays-{VERSION}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clp"


def _samples(x: np.ndarray, y: np.ndarray, fingerprint: str, mapped: bool) -> Samples:
    index = torch.arange(len(y))
    return Samples(torch.from_numpy(x), index, torch.from_numpy(y), fingerprint, mapped=mapped)


def _is_mapped(meta: dict) -> bool:  # type: ignore[type-arg]
    budget = int(os.environ.get("CLP_RESIDENT_BYTES") or RESIDENT_BYTES)
    return bool(sum(meta["bytes"].values()) > budget)


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


def _digits(folder: Path) -> Arrays:
    """The 1797 digits of scikit-learn, 8x8 with 17 grey levels; every third is for testing.

    The choice is made within each class, so that the classes stay balanced.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    rank = np.zeros(len(y), dtype=np.int64)
    for c in range(10):
        rank[y == c] = np.arange((y == c).sum())
    test = rank % 3 == 2
    return Arrays(x[~test], y[~test], x[test], y[test], [str(c) for c in range(10)])


def _idx_source(class_name: str, names: list[str]) -> Source:
    """A member of the MNIST family, by the name of its torchvision class."""

    def local(folder: Path) -> Arrays | None:
        if not list(folder.glob("train-images-idx3-ubyte*")):
            return None
        return Arrays(*read_idx(folder), names)

    def download(raw: Path) -> Arrays:
        from torchvision import datasets

        getattr(datasets, class_name)(raw, download=True)
        return Arrays(*read_idx(raw / class_name / "raw"), names)

    return Source(local, download, 60000)


def _cifar_source(n_classes: int) -> Source:
    folder_name = "cifar-10-batches-py" if n_classes == 10 else "cifar-100-python"

    def sheets(folder: Path) -> Arrays | None:
        if not list(folder.glob("train*/*.webp")):
            return None
        meta = read_json(folder / "meta.json")
        names = meta.get("label_names") or meta["fine_label_names"]
        coarse = meta.get("coarse_of_fine", [])
        groups = _by_group(coarse, meta.get("coarse_label_names", []))
        return Arrays(*read_sheets(folder, "train"), *read_sheets(folder, "test"), names, groups)

    def pickles(folder: Path) -> Arrays:
        if n_classes == 10:
            train = [f"data_batch_{i}" for i in range(1, 6)]
            names = unpickle(folder / "batches.meta")["label_names"]
            return Arrays(
                *read_cifar_pickles(folder, train, "labels"),
                *read_cifar_pickles(folder, ["test_batch"], "labels"),
                names,
            )
        meta, train_batch = unpickle(folder / "meta"), unpickle(folder / "train")
        pairs = dict(zip(train_batch["fine_labels"], train_batch["coarse_labels"], strict=True))
        coarse = [pairs[c] for c in sorted(pairs)]
        return Arrays(
            *read_cifar_pickles(folder, ["train"], "fine_labels"),
            *read_cifar_pickles(folder, ["test"], "fine_labels"),
            meta["fine_label_names"],
            _by_group(coarse, meta["coarse_label_names"]),
        )

    def local(folder: Path) -> Arrays | None:
        official = folder / folder_name
        return pickles(official) if official.is_dir() else sheets(folder)

    def download(raw: Path) -> Arrays:
        from torchvision import datasets

        getattr(datasets, f"CIFAR{n_classes}")(raw, download=True)
        return pickles(raw / folder_name)

    return Source(local, download, 50000)


def _by_group(group_of_class: list[int], names: list[str]) -> dict[str, list[int]]:
    return {
        name: [c for c, g in enumerate(group_of_class) if g == i] for i, name in enumerate(names)
    }


def _omniglot_local(folder: Path) -> Arrays | None:
    if not (folder / "images.packbits.xz").exists():
        return None
    return _omniglot(*read_omniglot_bits(folder))


def _omniglot_download(raw: Path) -> Arrays:
    from torchvision import datasets

    for background in (True, False):
        datasets.Omniglot(raw, background=background, download=True)
    root = raw / "omniglot-py"
    folders = [root / "images_background", root / "images_evaluation"]
    return _omniglot(*read_omniglot_folders(folders))


def _omniglot(bits: np.ndarray, classes: list[dict[str, str]]) -> Arrays:
    """28x28; of the 20 drawers of each character the first 15 are for training."""
    n = len(classes)
    x = shrink_omniglot(bits).reshape(n, 20, 1, 28, 28)
    y = np.arange(n).repeat(20).reshape(n, 20)
    groups: dict[str, list[int]] = {}
    for i, c in enumerate(classes):
        groups.setdefault(c["alphabet"], []).append(i)
    names = [f"{c['alphabet']}/{c['character']}" for c in classes]
    return Arrays(
        x[:, :15].reshape(-1, 1, 28, 28),
        y[:, :15].reshape(-1),
        x[:, 15:].reshape(-1, 1, 28, 28),
        y[:, 15:].reshape(-1),
        names,
        groups,
    )


def _tiny_local(folder: Path) -> Arrays | None:
    archives = sorted(folder.glob("tiny*.zip"))
    if not archives:
        return None
    arrays = read_tiny_imagenet(archives)
    listed = read_json(folder / "classes.json")
    if listed:
        by_wnid = {c["wnid"]: c["words"] for c in listed}
        arrays.class_names[:] = [by_wnid.get(w, w) for w in arrays.class_names]
    return arrays


def _tiny_download(raw: Path) -> Arrays:
    from torchvision.datasets.utils import download_url

    name = "tiny-imagenet-200.zip"
    address = f"http://cs231n.stanford.edu/{name}"
    download_url(address, str(raw), name, "90528d7ca1a48142e341f4ef8d21d0de")
    return read_tiny_imagenet([raw / name])


DIGITS = [str(c) for c in range(10)]
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
KUZUSHIJI = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]

SOURCES: dict[str, Source] = {
    "digits": Source(_digits, _digits, 1201),
    "mnist": _idx_source("MNIST", DIGITS),
    "fashion-mnist": _idx_source("FashionMNIST", FASHION),
    "kmnist": _idx_source("KMNIST", KUZUSHIJI),
    "cifar10": _cifar_source(10),
    "cifar100": _cifar_source(100),
    "omniglot": Source(_omniglot_local, _omniglot_download, 1623 * 15),
    "tiny-imagenet": Source(_tiny_local, _tiny_download, 100000),
}
