"""Readers of the file formats in which image data sets are published; all return uint8 arrays."""

from __future__ import annotations

import gzip
import json
import lzma
import pickle
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

Array = np.ndarray
D = TypeVar("D")


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in memory: x (N, C, H, W) uint8 or token ids (N, L) int32, y (N,) int64.

    `groups` names sets of classes that belong together (superclasses, alphabets).
    """

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    class_names: list[str]
    groups: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source(Generic[D]):
    """Where a data set comes from, as arrays or as texts.

    Args:
        local: reads official files from the set's own folder, or returns None without them.
        download: fetches them into a folder and reads them.
    """

    local: Callable[[Path], D | None]
    download: Callable[[Path], D]


def read_idx(folder: Path) -> tuple[Array, Array, Array, Array]:
    """Read the four idx files of the MNIST family, packed or not."""
    images = [_idx(folder, f"{part}-images-idx3-ubyte")[:, None] for part in ("train", "t10k")]
    labels = [_idx(folder, f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
    return images[0], labels[0].astype(np.int64), images[1], labels[1].astype(np.int64)


def _idx(folder: Path, name: str) -> Array:
    packed = folder / f"{name}.gz"
    raw = packed if packed.exists() else folder / name
    content = raw.read_bytes()
    if raw is packed:
        content = gzip.decompress(content)
    n_dimensions = content[3]
    shape = np.frombuffer(content, ">i4", n_dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)


def read_sheets(folder: Path, part: str) -> tuple[Array, Array]:
    """Read sheets ``<part>*/<label>_<class>.webp``, each with the images of a class in a column."""
    xs, ys = [], []
    for file in sorted(folder.glob(f"{part}*/*.webp")):
        sheet = decode_image(file.read_bytes())
        images = sheet.reshape(3, -1, sheet.shape[2], sheet.shape[2]).swapaxes(0, 1)
        xs.append(images)
        ys.append(np.full(len(images), int(file.name.partition("_")[0])))
    return np.concatenate(xs), np.concatenate(ys)


def read_cifar_pickles(folder: Path, files: Iterable[str], label: str) -> tuple[Array, Array]:
    """Read batches of the official python version of CIFAR-10 and CIFAR-100."""
    xs, ys = [], []
    for name in files:
        batch = unpickle(folder / name)
        xs.append(np.asarray(batch["data"]).reshape(-1, 3, 32, 32))
        ys.append(np.asarray(batch[label], dtype=np.int64))
    return np.concatenate(xs), np.concatenate(ys)


def unpickle(path: Path) -> dict[str, Any]:
    """Read a CIFAR pickle: arrays, text, numbers and their containers, and nothing that is run.

    Raises:
        pickle.UnpicklingError: it holds anything else.
    """
    with path.open("rb") as file:
        content: dict[str, Any] = _Unpickler(file, encoding="latin1").load()
    return content


class _Unpickler(pickle.Unpickler):
    """Makes arrays and plain types only: whoever writes a pickle decides what else is called."""

    ALLOWED = (
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("_codecs", "encode"),  # bytes, in pickles of later versions of Python
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it would call {module}.{name}, which no data need")
        return super().find_class(module, name)


def read_omniglot_bits(folder: Path) -> tuple[Array, list[dict[str, Any]]]:
    """Read all drawings from a packed file, 1 bit a pixel: (1623, 20, 105, 105), 1 is ink."""
    packed = (folder / "images.packbits.xz").read_bytes()
    rows = np.frombuffer(lzma.decompress(packed), np.uint8)
    classes = json.loads((folder / "classes.json").read_text())
    n = len(classes) * 20 * 105
    bits = np.unpackbits(rows.reshape(-1, 105), axis=0)[:n]
    return bits.reshape(len(classes), 20, 105, 105), classes


def read_omniglot_folders(folders: Iterable[Path]) -> tuple[Array, list[dict[str, Any]]]:
    """Read the official ``images_*/<alphabet>/<character>/<n>_<drawer>.png`` in the same form."""
    images, classes = [], []
    for folder in folders:
        for character in sorted(folder.glob("*/*")):
            drawings = sorted(character.glob("*.png"))
            images.append([decode_image(d.read_bytes())[0] < 128 for d in drawings])
            classes.append({"alphabet": character.parent.name, "character": character.name})
    return np.asarray(images, dtype=np.uint8), classes


def shrink_omniglot(bits: Array) -> Array:
    """Shrink (..., 105, 105) of 0 and 1 to (N, 1, 28, 28) uint8 by averaging areas."""
    flat = bits.reshape(-1, 1, 105, 105)
    small = [
        torch.nn.functional.interpolate(torch.from_numpy(part * np.float32(255)), 28, mode="area")
        for part in np.array_split(flat, max(1, len(flat) // 2000))
    ]
    return torch.cat(small).round().to(torch.uint8).numpy()


def read_tiny_imagenet(archives: Iterable[Path]) -> Arrays:
    """Read JPEGs of zip archives: ``train/<wnid>/...``, ``val/...`` as published or by class."""
    images: dict[str, dict[str, list[Array]]] = {"train": {}, "val": {}}
    words: dict[str, str] = {}
    for archive in archives:
        with zipfile.ZipFile(archive) as zipped:
            names = zipped.namelist()
            class_of = _columns(zipped, names, "val_annotations.txt")  # where `val` is one folder
            words |= _columns(zipped, names, "words.txt")
            for name in names:
                if not name.endswith(".JPEG"):
                    continue
                parts = name.split("/")
                split = "train" if "train" in parts else "val"
                wnid = class_of.get(parts[-1]) or parts[parts.index(split) + 1]
                images[split].setdefault(wnid, []).append(decode_image(zipped.read(name)))
    wnids = sorted(images["train"])
    train_x, train_y = _stack([images["train"][w] for w in wnids])
    test_x, test_y = _stack([images["val"].get(w, []) for w in wnids])
    return Arrays(train_x, train_y, test_x, test_y, [words.get(w, w) for w in wnids])


def _columns(zipped: zipfile.ZipFile, names: list[str], file: str) -> dict[str, str]:
    """Return the second column of a file in an archive by the first; empty without the file."""
    listing = [n for n in names if n.endswith(file)]
    lines = zipped.read(listing[0]).decode().splitlines() if listing else []
    return {line.split("\t")[0]: line.split("\t")[1] for line in lines}


def _stack(classes: list[list[Array]]) -> tuple[Array, Array]:
    y = np.repeat(np.arange(len(classes)), [len(c) for c in classes])
    return np.stack([image for c in classes for image in c]), y


def decode_image(content: bytes) -> Array:
    """Decode an image to (3, H, W) uint8."""
    from PIL import Image

    return np.asarray(Image.open(BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
