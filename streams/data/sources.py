"""Sources of image data sets: official files put there by hand, or else a download.

To add a data set of images, add a ``Source`` to ``SOURCES`` and its size to ``datasets.IMAGES``;
``streams.images`` makes streams of it. For texts see ``streams.data.text_sources`` and
``streams.text``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from streams.data.formats import (
    Arrays,
    Source,
    read_cifar_pickles,
    read_idx,
    read_omniglot_bits,
    read_omniglot_folders,
    read_sheets,
    read_tiny_imagenet,
    shrink_omniglot,
    unpickle,
)


def _digits(folder: Path) -> Arrays:
    """Return the 1797 digits of scikit-learn, 8x8 with 17 grey levels; every third is for testing.

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


def _idx_source(class_name: str, names: list[str]) -> Source[Arrays]:
    """Return a source for the MNIST family, by the name of the torchvision class."""

    def local(folder: Path) -> Arrays | None:
        if not list(folder.glob("train-images-idx3-ubyte*")):
            return None
        return Arrays(*read_idx(folder), names)

    def download(raw: Path) -> Arrays:
        from torchvision import datasets

        getattr(datasets, class_name)(raw, download=True)
        return Arrays(*read_idx(raw / class_name / "raw"), names)

    return Source(local, download)


def _cifar_source(n_classes: int) -> Source[Arrays]:
    folder_name = "cifar-10-batches-py" if n_classes == 10 else "cifar-100-python"

    def sheets(folder: Path) -> Arrays | None:
        if not list(folder.glob("train*/*.webp")):
            return None
        meta = json.loads((folder / "meta.json").read_text("utf-8-sig"))
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

    return Source(local, download)


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
    """Shrink to 28x28; the first 15 of the 20 drawers of each character are for training."""
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
    if (folder / "classes.json").exists():
        listed = json.loads((folder / "classes.json").read_text("utf-8-sig"))
        by_wnid = {c["wnid"]: c["words"] for c in listed}
        arrays.class_names[:] = [by_wnid.get(w, w) for w in arrays.class_names]
    return arrays


def _tiny_download(raw: Path) -> Arrays:
    from torchvision.datasets.utils import download_url

    name = "tiny-imagenet-200.zip"
    address = f"https://cs231n.stanford.edu/{name}"
    download_url(address, str(raw), name, "90528d7ca1a48142e341f4ef8d21d0de")
    return read_tiny_imagenet([raw / name])


DIGITS = [str(c) for c in range(10)]
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
KUZUSHIJI = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]

SOURCES: dict[str, Source[Arrays]] = {
    "digits": Source(_digits, _digits),
    "mnist": _idx_source("MNIST", DIGITS),
    "fashion-mnist": _idx_source("FashionMNIST", FASHION),
    "kmnist": _idx_source("KMNIST", KUZUSHIJI),
    "cifar10": _cifar_source(10),
    "cifar100": _cifar_source(100),
    "omniglot": Source(_omniglot_local, _omniglot_download),
    "tiny-imagenet": Source(_tiny_local, _tiny_download),
}
