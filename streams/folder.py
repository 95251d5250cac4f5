"""Streams of images in folders, one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from cl_platform.errors import BadInput, DataError
from streams.data.own import Part, Rows, Source
from streams.data.pictures import Channels, Form, Size, Unreadable, decode_all
from streams.doors import door
from streams.row_groups import SOURCE

IMAGES = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
}
HIDDEN = (".", "__MACOSX")
PARTS: dict[str, Part] = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
}


@dataclass(frozen=True)
class Picture:
    """An image file, and where it belongs."""

    file: Path
    part: Part
    label: str
    source: str


@door
def folder(
    path: str | Sequence[str],
    *,
    size: Size | None = None,
    crop: bool = True,
    channels: Channels = "auto",
    background: str = "white",
    unreadable: Unreadable = "refuse",
) -> Source:
    """Read images from class folders, or from class folders in ``train``, ``val`` and ``test``.

    Images may lie anywhere below the folder of their class. Files of other types are passed over.

    Args:
        path: the folder, or a list of folders: sources with the same classes, one domain each
            (``--scenario domain``), or with classes of their own.
        size: height and width, or one number for both; None keeps them, and they must be the same.
        crop: scale an image to cover that size and cut off what is beyond, evenly on both sides;
            if not, squash it.
        channels: 1 for grey, 3 for colour; ``auto`` is grey if all images are.
        background: the colour behind transparent pixels, by name or as ``#rrggbb``.
        unreadable: ``refuse``, or ``skip`` to leave out images that cannot be read.

    The other arguments are those of :func:`streams.doors.opened` and
    :func:`streams.sharing.share_out`.

    Raises:
        DataError: a folder or an image cannot be read.
        BadInput: classes have no images, or sizes differ.
    """
    roots = [Path(p).expanduser() for p in ([path] if isinstance(path, str) else path)]
    names = _names(roots)
    notes: list[str] = []
    found = [p for root, name in zip(roots, names, strict=True) for p in _in(root, name, notes)]
    found.sort(key=lambda picture: picture.part)  # the parts one after the other
    files = [picture.file for picture in found]
    form = Form(size, crop, channels, background)

    def read() -> Iterator[tuple[Part, Rows]]:
        shown = [os.path.relpath(file, roots[0].parent) for file in files]
        for places, pixels in decode_all(files, shown, form, unreadable, notes):
            start = 0
            for part, group in groupby((found[i] for i in places), attrgetter("part")):
                block = list(group)
                sources = {SOURCE: [p.source for p in block]} if len(roots) > 1 else {}
                rows = pixels[start : start + len(block)]
                yield part, Rows(rows, [p.label for p in block], sources)
                start += len(block)

    reading = {"paths": [str(root.absolute()) for root in roots], "skip": unreadable == "skip"}
    return Source("+".join(names), read, files, {**reading, **asdict(form)}, notes=notes)


def _names(roots: Sequence[Path]) -> list[str]:
    names = [root.resolve().name for root in roots]
    names = names if len(set(names)) == len(names) else [str(root) for root in roots]
    if not names or len(set(names)) < len(names):
        raise BadInput(f"stream.path={names}: give one folder or several different ones")
    return names


def _in(root: Path, source: str, notes: list[str]) -> Iterator[Picture]:
    """Yield the images of a folder in the order of torchvision's ``ImageFolder``."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: give one with a folder for each class")
    for part, folder in _parts(root, notes).items():
        classes = {label.name: _images(label) for label in _folders(folder)}
        if empty := [name for name, files in classes.items() if not files]:
            raise BadInput(
                f"no images in {len(empty)} class folders of {folder}: {', '.join(empty):.100}; "
                "remove the folders, or put images into them"
            )
        stray = [file for file in folder.iterdir() if _is_image(file.name)]
        if stray:
            where = "" if folder == root else f" in {folder.name}"
            images = "1 image" if len(stray) == 1 else f"{len(stray)} images"
            notes.append(f"{images} outside of class folders{where} left out")
        for label, files in classes.items():
            yield from (Picture(file, part, label, source) for file in files)


def _parts(root: Path, notes: list[str]) -> dict[Part, Path]:
    """Return the folder of each part; a folder without parts is the training part."""
    inside = _folders(root)
    parts = [(PARTS[f.name.lower()], f) for f in inside if f.name.lower() in PARTS]
    found = dict(parts)
    if "train" not in found or not _folders(found["train"]):  # train may be a class, beside car
        if not inside:
            raise DataError(f"{root} has no folders: give one with a folder for each class")
        return {"train": root}
    if len(found) < len(parts):
        same = ", ".join(folder.name for _, folder in parts)
        raise BadInput(f"{root} has several folders for one part ({same}): leave one of each")
    others = [folder.name for folder in inside if folder.name.lower() not in PARTS]
    if others:
        notes.append(f"folders beside {found['train'].name} left out: {', '.join(others):.60}")
    return found


def _folders(folder: Path) -> list[Path]:
    found = [d for d in folder.iterdir() if d.is_dir() and not d.name.startswith(HIDDEN)]
    return sorted(found, key=lambda d: d.name)


def _images(folder: Path) -> list[Path]:
    above, found = os.path.realpath(folder), []
    for inner, folders, names in os.walk(folder, followlinks=True):
        targets = {f: os.path.realpath(os.path.join(inner, f)) for f in folders}
        # A link to a folder above has no end.
        folders[:] = [f for f, real in targets.items() if not f"{above}/".startswith(f"{real}/")]
        found.append((inner, sorted(filter(_is_image, names))))
    return [Path(inner, name) for inner, names in sorted(found) for name in names]


def _is_image(name: str) -> bool:
    return not name.startswith(HIDDEN) and os.path.splitext(name)[1].lower() in IMAGES
