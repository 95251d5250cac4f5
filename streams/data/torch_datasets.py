"""Map-style data sets of torch and torchvision, read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from cl_platform.core.rng import global_generators
from cl_platform.errors import BadInput, ClpError, one_line
from streams.data.array_rows import Layout, as_array, channels_second, label_names
from streams.data.collect import Rows
from streams.data.pictures import Form, decode, is_grey, is_picture

BLOCK_BYTES = 2**26
TRIED, TIMES = 8, 4  # samples that are read again, and how often
RANDOM = (
    *("Random", "ColorJitter", "AutoAugment", "TrivialAugment", "AugMix", "Elastic"),
    *("Gaussian", "ScaleJitter", "MixUp", "CutMix"),
)


@dataclass(frozen=True)
class Reading:
    """How the samples of a data set are read.

    Args:
        form: how images come out.
        layout: where arrays have their channels.
        class_names: of the labels; None takes the data set's own ``classes``.
        freeze_random: whether random transforms are taken as they are drawn once.
    """

    form: Form
    layout: Layout = "auto"
    class_names: Sequence[str] | None = None
    freeze_random: bool = False


def read_dataset(dataset: Any, reading: Reading, notes: list[str]) -> Iterator[Rows]:
    """Yield the rows of a data set, block by block.

    Args:
        notes: gets a line on random transforms of which one draw is kept.

    Raises:
        BadInput: it is not map-style, its samples are no pairs of an input and a label, or its
            transforms are random.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise BadInput(
            f"{type(dataset).__name__} is no map-style data set, whose rows can be counted and "
            "read again: collect its samples and give arrays, Stream.from_arrays(x, y)"
        )
    n, start = len(dataset), 0
    with global_generators(0):  # which are put back as they were
        transforms = _random_transforms(dataset, n) if n else ""
    if transforms:
        if not reading.freeze_random:
            raise BadInput(
                f"{type(dataset).__name__} gives other inputs each time it is read ("
                f"{transforms:.100}): leave random transforms out and give augmentation, which is "
                "drawn at each step, or keep one draw of each sample, freeze_random=True"
            )
        notes.append(f"one draw of {transforms} kept")
    names, form = reading.class_names or own_class_names(dataset), reading.form
    while start < n:
        with global_generators(start):  # what is drawn is the same each time
            first = _sample(dataset, start)[0]
            if form.channels == "auto" and is_picture(first):
                form = replace(form, channels=1 if is_grey(first) else 3)
            each = max(1, np.asarray(_input(first, form)).nbytes)
            rows = range(start, min(n, start + max(1, BLOCK_BYTES // each)))
            pairs = [_sample(dataset, i) for i in rows]
        for i, (x, _) in zip(rows, pairs, strict=True):
            if reading.form.channels == "auto" and form.channels == 1 and is_picture(x):
                _check_grey(x, i)
        inputs = [_input(x, form) for x, _ in pairs]
        layout: Layout = "channels_first" if is_picture(first) else reading.layout
        labels = label_names([y for _, y in pairs], names)
        yield Rows(_stacked(inputs, start, layout), labels)
        start = rows.stop


def own_class_names(dataset: Any) -> list[str] | None:
    """Return the ``classes`` of a data set, or of those inside it, where these agree."""
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple) and classes:
        return [", ".join(map(str, c)) if isinstance(c, list | tuple) else str(c) for c in classes]
    inner = getattr(dataset, "dataset", None)  # of a Subset; a ConcatDataset has several
    inside = getattr(dataset, "datasets", ()) if inner is None else [inner]
    found = [own_class_names(one) for one in inside]
    return found[0] if found and all(names == found[0] for names in found) else None


def _sample(dataset: Any, i: int) -> tuple[Any, Any]:
    """Return input and label at a place.

    Raises:
        BadInput: the data set raises an error, or gives something else.
    """
    kind = type(dataset).__name__
    try:
        found = dataset[i]
    except (ClpError, KeyboardInterrupt):
        raise
    except Exception as error:  # of a user's own code
        reason = f"{type(error).__name__}: {one_line(error, 150)}"
        raise BadInput(f"{kind}[{i}] cannot be read ({reason})") from error
    if not isinstance(found, list | tuple) or len(found) < 2:
        raise BadInput(
            f"{kind}[{i}] is a {type(found).__name__}: expected an input and a label; wrap the "
            "data set in one that returns (x, y)"
        )
    label = found[1]
    return found[0], label.item() if isinstance(label, Tensor) and label.numel() == 1 else label


def _input(x: Any, form: Form) -> Any:
    """Return an input as an array, or a text as it is."""
    if isinstance(x, str):
        return x
    return decode(x, form) if is_picture(x) else as_array(x)


def _check_grey(picture: Any, i: int) -> None:
    if not is_grey(picture):
        raise BadInput(f"sample {i} is in colour, those before it are grey: give channels=3, or 1")


def _stacked(inputs: Sequence[Any], start: int, layout: Layout) -> Any:
    if isinstance(inputs[0], str):
        return inputs
    for i, array in enumerate(inputs):
        if array.shape != inputs[0].shape:
            raise BadInput(
                f"samples {start} and {start + i} have shapes {inputs[0].shape} and {array.shape}: "
                "give all the same; images get it by size=64"
            )
    return channels_second(np.stack(inputs), layout)


def _random_transforms(dataset: Any, n: int) -> str:
    """Return the names of random transforms; nothing if samples are the same each time."""
    for i in sorted({k * (n - 1) // (TRIED - 1) for k in range(TRIED)}):
        first, *others = [_sample(dataset, i)[0] for _ in range(TIMES)]
        if not all(_equal(first, other) for other in others):
            return ", ".join(_transforms(dataset)) or "its own code"
    return ""


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return bool(one == other)
    one, other = (np.asarray(x) if is_picture(x) else as_array(x) for x in (one, other))
    return bool(one.shape == other.shape and one.tobytes() == other.tobytes())


def _transforms(dataset: Any) -> list[str]:
    """Return the names of the transforms that are random by name, or else of all."""
    found: dict[str, None] = {}
    queue = [dataset]
    for part in queue:
        for attribute in ("transform", "transforms", "dataset", "datasets"):
            inner = getattr(part, attribute, None)
            queue += inner if isinstance(inner, list | tuple) else [inner] * (inner is not None)
        if callable(part) and not hasattr(part, "transforms"):
            found[getattr(part, "__name__", type(part).__name__)] = None
    return [name for name in found if name.startswith(RANDOM)] or list(found)
