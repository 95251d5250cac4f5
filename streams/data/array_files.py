"""Files of arrays, and which of their arrays are inputs, labels and columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.errors import BadInput, DataError, one_line
from streams.data.array_rows import as_array
from streams.data.own import Part

INPUTS = ("x", "data", "images", "image", "inputs", "features")
LABELS = ("y", "labels", "label", "targets", "target")
CLASS_NAMES = ("class_names", "classes", "label_names")
PARTS: dict[str, Part] = {
    **{"train": "train", "training": "train", "test": "test"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
}
MARKS: dict[Part, str] = {"train": "", "test": "_test", "validation": "_validation"}
_PART = "|".join(PARTS)
_NAME = re.compile(
    rf"(?P<short>[xy])(?P<joined>{_PART})|"
    rf"(?:(?P<before>{_PART})[_. -])?(?P<base>.+?)(?:[_. -](?P<after>{_PART}))?",
    re.IGNORECASE,
)


def stored_arrays(file: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of a file by name; of an ``.npy`` file, all of its folder, mapped.

    Raises:
        DataError: it cannot be read without running code in it, or is of another type.
    """
    try:
        if file.suffix == ".npy":
            beside = sorted(file.parent.glob("*.npy"))
            return {f.stem: np.load(f, mmap_mode="r", allow_pickle=False) for f in beside}
        if file.suffix == ".npz":
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                return dict(stored)
        if file.suffix in (".pt", ".pth"):
            return _tensors(file)
    except Exception as error:  # torch and zip files have errors of all kinds
        reason = one_line(error, 150)
        raise DataError(
            f"{file} cannot be read ({reason}): store plain arrays or tensors, without objects"
        ) from error
    raise DataError(f"{file} is no file of arrays: give an .npz, .npy or .pt file")


def _tensors(file: Path) -> dict[str, np.ndarray]:
    import torch

    stored: Any = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(stored, list | tuple) and len(stored) == 2:
        stored = dict(zip("xy", stored, strict=True))
    if not isinstance(stored, Mapping):
        raise ValueError(f"it holds a {type(stored).__name__}, not a dict or a pair of tensors")
    return {str(key): as_array(value) for key, value in stored.items()}


def names_in(
    stored: Mapping[str, np.ndarray], given: Mapping[str, str | None], file: str
) -> tuple[dict[Part, tuple[str, str]], dict[Part, dict[str, str]], str | None]:
    """Return which arrays are the inputs and labels of each part, its columns, and class names.

    Args:
        given: names that a person gave, by ``x``, ``y``, ``x_test`` and so on.

    Raises:
        BadInput: it is not clear, or a given name is not there.
    """
    shapes = ", ".join(f"{name} {np.shape(a)}" for name, a in stored.items())
    roles: dict[tuple[Part, str], list[str]] = {}
    listed = None
    for name, array in stored.items():
        if name.lower() in CLASS_NAMES and array.dtype.kind in "US" and array.ndim == 1:
            listed = name
        else:
            roles.setdefault(_role(name), []).append(name)
    parts: dict[Part, tuple[str, str]] = {}
    for part, mark in MARKS.items():
        found = []
        for kind, bases in (("x", INPUTS), ("y", LABELS)):
            wanted = given.get(kind + mark)
            names = [wanted] if wanted else [n for b in bases for n in roles.get((part, b), ())]
            if wanted and wanted not in stored:
                raise BadInput(f"stream.{kind}{mark}={wanted}: {file} has {shapes:.200}")
            if len(names) > 1 or (part == "train" and not names):
                what = "several arrays could be" if names else "no array has a name like"
                raise BadInput(
                    f"{what} {kind}{mark} in {file}: give stream.{kind}{mark}=NAME, one of "
                    f"{shapes:.250}"
                )
            found += names
        if len(found) == 1:
            raise BadInput(
                f"{file} has {found[0]!r:.60}, but not the other one of x{mark} and y{mark}: give "
                f"stream.x{mark}=NAME and stream.y{mark}=NAME, of {shapes:.200}"
            )
        if found:
            parts[part] = (found[0], found[1])
    used = {name for pair in parts.values() for name in pair}
    columns: dict[Part, dict[str, str]] = {}
    for name, array in stored.items():
        part, base = _role(name)
        if name in used or name == listed or part not in parts:
            continue
        if np.shape(array) == (len(stored[parts[part][1]]),):
            columns.setdefault(part, {})[base] = name
    return parts, columns, listed


def _role(name: str) -> tuple[Part, str]:
    """Return the part that an array's name speaks of, and the rest of it, in small letters."""
    found = _NAME.fullmatch(name)
    if not found:
        return "train", name.lower()
    part = found["joined"] or found["before"] or found["after"] or "train"
    return PARTS[part.lower()], (found["short"] or found["base"]).lower()
