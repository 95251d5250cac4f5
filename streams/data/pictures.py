"""Images of any size and mode, decoded to arrays (C, H, W) uint8."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import PositiveInt

from cl_platform.errors import BadInput, DataError, one_line, say_once

T = TypeVar("T")
Given = Any
"""An image: a file (Path), the content of one (bytes), or as Pillow has it."""
Size = PositiveInt | tuple[PositiveInt, PositiveInt]
Channels = Literal["auto", 1, 3]
Unreadable = Literal["refuse", "skip"]
GREY = ("1", "L", "LA", "La", "I")  # modes; those of 16 bits begin with I;16
BLOCK_BYTES = 2**26  # of decoded images
READERS = 8  # threads at most: Pillow decodes outside of Python's lock


@dataclass(frozen=True)
class Form:
    """How images come out.

    Args:
        size: height and width, or one number for both; None keeps them, and they must be the same.
        crop: scale an image to cover that size and cut off what is beyond, evenly on both sides;
            if not, squash it.
        channels: 1 for grey, 3 for colour; ``auto`` is grey if all images are.
        background: the colour behind transparent pixels, by name or as ``#rrggbb``.
    """

    size: Size | None = None
    crop: bool = True
    channels: Channels = "auto"
    background: str = "white"


def decode(given: Given, form: Form) -> np.ndarray:
    """Return an image, upright, as (C, H, W) uint8.

    Pixels of 16 bits are scaled so that 65535 becomes 255; colours become grey by ITU-R 601;
    sizes change by antialiased bilinear interpolation.

    Args:
        form: its `channels` must be 1 or 3.

    Raises:
        Exception: whatever Pillow raises for what it cannot read.
    """
    from PIL import Image, ImageOps

    with _opened(given) as image:
        upright = _in_eight_bits(ImageOps.exif_transpose(image), form.background)
        upright = upright.convert("L" if form.channels == 1 else "RGB")
    if form.size is not None:
        height, width = _sides(form.size)
        resized = ImageOps.fit if form.crop else Image.Image.resize
        upright = resized(upright, (width, height), Image.Resampling.BILINEAR)
    pixels = np.array(upright)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_all(
    images: Sequence[Given],
    names: Sequence[str],
    form: Form,
    unreadable: Unreadable,
    notes: list[str],
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield blocks of decoded images: their places in `images`, (n,), and pixels, (n, C, H, W).

    Args:
        names: of the images, for messages.
        unreadable: whether an image that cannot be read is an error, or is left out.
        notes: gets a line on how many are left out.

    Raises:
        DataError: an image cannot be read, or Pillow is not installed.
        BadInput: the images have different sizes and none is given.
    """
    _check_background(form.background)
    lost: dict[int, str] = {}

    def read(call: Callable[[Given], T], places: Sequence[int]) -> dict[int, T]:
        read: dict[int, T] = {}
        tried = pool.map(partial(_try, call), [images[i] for i in places])
        for i, (value, fault) in zip(places, tried, strict=True):
            if value is not None:
                read[i] = value
            elif unreadable == "skip":
                lost[i] = fault
            else:
                raise DataError(
                    f"{names[i]} is no readable image ({fault}): repair or remove it, or leave "
                    "such files out, stream.unreadable=skip"
                )
        return read

    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        places: Sequence[int] = range(len(images))
        if form.size is None or form.channels == "auto":
            seen = read(_look, places)
            places, form = list(seen), _settled(seen, names, form)
        for block in _blocks(places, form):
            if decoded := read(partial(decode, form=form), block):
                yield list(decoded), np.stack(list(decoded.values()))
    if lost:
        several = "s" * (len(lost) > 1)
        notes.append(f"{len(lost)} unreadable image{several} left out")
        some = ", ".join(names[i] for i in sorted(lost)[:3]) + ", ..." * (len(lost) > 3)
        say_once(f"unreadable and left out: {some}")


def is_picture(value: object) -> bool:
    """Return whether a value is an image of Pillow."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_grey(image: Any) -> bool:
    """Return whether an image of Pillow has no colours, by its mode."""
    return image.mode in GREY or image.mode.startswith("I;16")


def _opened(given: Given) -> AbstractContextManager[Any]:
    from PIL import Image

    if isinstance(given, Image.Image):
        return nullcontext(given)
    return Image.open(BytesIO(given) if isinstance(given, bytes) else given)


def _in_eight_bits(image: Any, background: str) -> Any:
    """Return an image (of Pillow) without transparent pixels, and of 8 bits a channel."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floats of no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() < 2**16:
            raise ValueError("its pixels have more than 16 bits; save it with 8 or 16")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode[-1] in "Aa" or "transparency" in image.info:
        below = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(below, image.convert("RGBA"))
    return image


def _try(call: Callable[[Given], T], given: Given) -> tuple[T | None, str]:
    """Return what a call gives, or the reason why it gives nothing."""
    try:
        return call(given), ""
    except MemoryError:
        raise
    except Exception as error:  # decoders have errors of all kinds
        return None, one_line(error, 100)


def _look(given: Given) -> tuple[tuple[int, int], bool]:
    """Return the height and width of an image, upright, and whether it is grey."""
    with _opened(given) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # lies on its side
            width, height = height, width
        return (height, width), is_grey(image)


def _settled(
    seen: dict[int, tuple[tuple[int, int], bool]], names: Sequence[str], form: Form
) -> Form:
    """Return the form with the size and channels that all images have."""
    if form.size is None:
        first = dict.fromkeys(size for size, _ in seen.values())
        if len(first) > 1:
            one, other = list(first)[:2]
            of = {size: names[i] for i, (size, _) in reversed(seen.items())}
            raise BadInput(
                f"images have different sizes, such as {one[0]}x{one[1]} ({of[one]}) and "
                f"{other[0]}x{other[1]} ({of[other]}): give one, such as stream.size=64"
            )
        form = replace(form, size=next(iter(first), None))
    if form.channels == "auto":
        form = replace(form, channels=1 if all(grey for _, grey in seen.values()) else 3)
    return form


def _blocks(places: Sequence[int], form: Form) -> Iterator[Sequence[int]]:
    pixels = math.prod(_sides(form.size or 1)) * 3
    n = max(1, min(1024, BLOCK_BYTES // pixels))
    return (places[start : start + n] for start in range(0, len(places), n))


def _sides(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _check_background(color: str) -> None:
    try:
        from PIL import ImageColor
    except ImportError as error:
        raise DataError("images need Pillow: install the extra 'vision'") from error
    try:
        ImageColor.getrgb(color)
    except ValueError as error:
        raise BadInput(
            f"stream.background={color!r:.40} is no colour: give a name or #rrggbb"
        ) from error
