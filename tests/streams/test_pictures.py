"""Images of every mode come out right: known pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cl_platform.errors import BadInput, DataError
from streams.data.pictures import Form, decode, decode_all

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def stored(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The image as the content of a file, which is what decoders meet."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(given: object, **form: Any) -> np.ndarray:
    return decode(given, Form(channels=1, **form))


def colours(given: object, **form: Any) -> np.ndarray:
    return decode(given, Form(channels=3, **form))


def test_sixteen_bits_are_scaled_not_cut() -> None:
    values = np.array([[0, 257, 32768], [65535, 255, 128]], dtype=np.uint16)
    content = stored(Image.fromarray(values))
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    assert grey(content).tolist() == [[[0, 1, 128], [255, 1, 0]]]  # v / 257, rounded
    assert colours(content)[2].tolist() == [[0, 1, 128], [255, 1, 0]]
    tiff = stored(Image.fromarray(values.astype(np.int32)), "tiff")
    assert Image.open(io.BytesIO(tiff)).mode == "I"
    assert grey(tiff).tolist() == grey(content).tolist()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[70000]], np.int32), "more than 16 bits"),
        (np.array([[0.5]], np.float32), "floats of no known range"),
    ],
)
def test_pixels_of_no_known_range_are_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grey(stored(Image.fromarray(pixels), "tiff"))


def test_palettes_become_their_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([1, 0])
    assert colours(stored(image)).reshape(3, 2).T.tolist() == [list(BLUE), list(RED)]
    clear = stored(image, transparency=0)  # the red one
    assert colours(clear).reshape(3, 2).T.tolist() == [list(BLUE), list(WHITE)]


@pytest.mark.parametrize(("background", "seen"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_show_the_background(background: str, seen: int) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (9, 9, 9, 0), (0, 0, 0, 128)])
    found = colours(stored(image), background=background).reshape(3, 3).T
    assert found[0].tolist() == list(RED)
    assert found[1].tolist() == [seen] * 3
    assert found[2] == pytest.approx([seen * 127 / 255] * 3, abs=1)
    shade = Image.new("LA", (1, 1), (9, 0))
    assert grey(stored(shade), background=background).item() == seen


def test_one_bit_and_cmyk() -> None:
    bits = Image.new("1", (2, 1))
    bits.putdata([0, 255])
    assert grey(stored(bits)).tolist() == [[[0, 255]]]
    ink = Image.new("CMYK", (1, 1), (0, 255, 255, 0))  # magenta and yellow
    assert colours(stored(ink, "tiff")).flatten().tolist() == list(RED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photographs_are_upright(orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: np.rot90,  # the camera was turned clockwise, so the stored rows are columns
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(Image.fromarray(np.ascontiguousarray(turns[orientation](upright))), exif=exif)
    assert grey(content)[0].tolist() == upright.tolist()
    ((_, found),) = decode_all([content], ["photo"], Form(), "refuse", [])
    assert found.shape == (1, 1, 2, 3)  # what is looked at first is upright as well


def test_crop_keeps_the_middle_and_squash_keeps_everything() -> None:
    wide = np.zeros((4, 8), np.uint8)
    wide[:, :2] = 255
    content = stored(Image.fromarray(wide))
    assert grey(content, size=4).max() == 0
    # The triangle around the first of four pixels is twice as wide: (3/4 + 3/4) / (7/4) of white.
    assert grey(content, size=4, crop=False)[0, :, 0].tolist() == [round(255 * 6 / 7)] * 4
    assert grey(content, size=(2, 8)).shape == (1, 2, 8)
    assert grey(content, size=(4, 8))[0].tolist() == wide.tolist()  # its own size: no pixel changes


def images(*modes: str) -> list[bytes]:
    return [stored(Image.new(mode, (4, 4), 7)) for mode in modes]


def read(given: list[bytes], form: Form | None = None, unreadable: Any = "refuse") -> tuple:
    notes: list[str] = []
    names = [f"{i}.png" for i in range(len(given))]
    blocks = list(decode_all(given, names, form or Form(), unreadable, notes))
    places = [i for places, _ in blocks for i in places]
    return places, np.concatenate([x for _, x in blocks]), notes


def test_channels_are_those_that_are_needed() -> None:
    assert read(images("L", "1", "LA"))[1].shape == (3, 1, 4, 4)
    assert read(images("L", "RGB"))[1].shape == (2, 3, 4, 4)
    assert read(images("L", "P"), Form(channels=1))[1].shape == (2, 1, 4, 4)


def test_different_sizes_are_refused_unless_one_is_given() -> None:
    mixed = [*images("L", "L"), stored(Image.new("L", (9, 5)))]
    with pytest.raises(BadInput, match=r"4x4 \(0\.png\) and 5x9 \(2\.png\).*stream\.size=64"):
        read(mixed)
    assert read(mixed, Form(size=6))[1].shape == (3, 1, 6, 6)


BROKEN = [b"no image", stored(Image.effect_noise((40, 40), 50))[:300], b""]


@pytest.mark.parametrize("broken", BROKEN, ids=["text", "cut", "empty"])
@pytest.mark.parametrize("form", [Form(size=4), Form(4, channels=1)], ids=["looked at", "decoded"])
def test_an_unreadable_image_is_named_or_left_out(broken: bytes, form: Form) -> None:
    given = [*images("L"), broken, *images("L")]
    with pytest.raises(DataError, match=r"1\.png is no readable image \(.+stream\.unreadable=skip"):
        read(given, form)
    places, x, notes = read(given, form, "skip")
    assert places == [0, 2]
    assert x.shape == (2, 1, 4, 4)
    assert notes == ["1 unreadable image left out"]


def test_many_images_come_in_blocks_in_their_order() -> None:
    given = [stored(Image.new("L", (300, 300), i)) for i in range(250)]
    places, x, _ = read(given)
    assert places == list(range(250))
    assert x[:, 0, 0, 0].tolist() == list(range(250))


def test_a_colour_that_is_none_is_told() -> None:
    with pytest.raises(BadInput, match=r"stream\.background='greenish' is no colour"):
        read(images("L"), Form(background="greenish"))
