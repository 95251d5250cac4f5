"""Arrays become rows: channels go first, labels become names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cl_platform.errors import BadInput
from streams.data.collect import Rows

Layout = Literal["auto", "channels_first", "channels_last"]
BLOCK_BYTES = 2**28  # of a mapped array that are read together
CHANNELS = (1, 3, 4)


def rows_of(
    x: Any,
    y: Any,
    class_names: Sequence[str] | None = None,
    columns: Mapping[str, Any] | None = None,
    layout: Layout = "auto",
) -> Iterator[Rows]:
    """Yield rows of arrays or tensors, block by block.

    Args:
        x: images (n, C, H, W), (n, H, W, C) or (n, H, W) uint8, or numbers (n, ...).
        y: numbers or names of classes, (n,) or (n, 1).
        class_names: of the labels 0, 1, ...
        columns: further values, each (n,).
        layout: as for :func:`streams.arrays.arrays`.

    Raises:
        BadInput: these do not fit together, or it is not clear where the channels are.
    """
    x, labels = as_array(x), label_names(y, class_names)
    values = {name: as_array(column) for name, column in (columns or {}).items()}
    for what, array in {"inputs": x, **values}.items():
        if not array.ndim or len(array) != len(labels):
            shape = f"{what} of shape {array.shape}"
            raise BadInput(f"{shape} for {len(labels)} labels: give one for each")
    step = max(1, BLOCK_BYTES // max(1, x[:1].nbytes))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        some = {name: column[rows] for name, column in values.items()}
        yield Rows(channels_second(x[rows], layout), labels[rows], some)


def channels_second(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Return inputs (n, ., ., .) as (n, C, H, W); images (n, H, W) of bytes get one channel.

    Raises:
        BadInput: it is not clear where the channels are.
    """
    if x.ndim == 3 and x.dtype == np.uint8:
        return x[:, None]
    if x.ndim != 4 or layout == "channels_first":
        return x
    first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
    if layout == "channels_last" or (last and not first):
        return np.moveaxis(x, 3, 1)
    if first and not last:
        return x
    raise BadInput(
        f"inputs of shape (n, {', '.join(map(str, x.shape[1:]))}): it is not clear where the "
        "channels are; give layout=channels_first for (n, C, H, W), or layout=channels_last"
    )


def label_names(y: Any, class_names: Sequence[str] | None = None) -> list[str]:
    """Return labels (n,) or (n, 1) as names; numbers are places in `class_names` if there are any.

    Raises:
        BadInput: these are no labels.
    """
    given = as_array(y)
    labels = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if labels.ndim != 1 or labels.dtype.kind not in "biufU":
        raise BadInput(
            f"labels of shape {labels.shape} ({labels.dtype}): give the number or name of each "
            "row's class, (n,)"
        )
    if labels.dtype.kind == "U":
        return [str(label) for label in labels.tolist()]
    numbers = labels.astype(np.int64)
    if not np.array_equal(numbers, labels):
        raise BadInput("labels are no whole numbers: give the number or name of each row's class")
    if class_names is None:
        return [str(number) for number in numbers.tolist()]
    names = [str(name) for name in class_names]
    twice = {name for name, n in Counter(names).items() if n > 1}  # which are not one class
    names = [f"{name} ({i})" if name in twice else name for i, name in enumerate(names)]
    strange = numbers[(numbers < 0) | (numbers >= len(names))]
    if len(strange):
        raise BadInput(
            f"label {strange[0]} has no name: there are {len(names)} class names, for the labels "
            f"0..{len(names) - 1}"
        )
    return [names[number] for number in numbers.tolist()]


def as_array(values: Any) -> np.ndarray:
    """Return an array or tensor, or a list of numbers or texts, as an array of numpy.

    Raises:
        BadInput: it is none of these.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return np.asarray(values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise BadInput(f"these are no arrays of one shape ({error}); give tensors") from error
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "biufcUM":
        strings = array.dtype.kind == "O" and all(isinstance(v, str) for v in array.flat)
        if not strings:
            raise BadInput(f"an array of {array.dtype} holds no numbers or texts: give tensors")
        array = array.astype(str)
    return array
