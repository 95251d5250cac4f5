"""Inputs of a stream are checked when it is made: shape, type, unit, and that they are numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.errors import BadInput

Change = Callable[[np.ndarray], np.ndarray]
LABELS = np.arange(40) % 4


def pixels(largest: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, largest + 1, (40, 1, 8, 8)).astype(np.uint8)


def same(x: np.ndarray) -> np.ndarray:
    return x


def to_unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / 16


def stream(first: Change = same, second: Change = same, test: Change = same) -> Stream:
    """Two experiences of two classes; test inputs of both are changed by `test` as well."""
    experiences = []
    for task, change in enumerate((first, second)):
        mine = task == LABELS // 2
        x, y = change(pixels()[mine]), LABELS[mine]
        train, held = Samples.of(x, y), Samples.of(test(x), y)
        classes = (2 * task, 2 * task + 1)
        e = Experience("AB"[task], classes, task, train, train.emptied(), held)
        experiences.append(e)
    return Stream("mine", "class", tuple(experiences), tuple("abcd"))


def enlarged(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, 2).repeat(2, 3)


def with_nan(x: np.ndarray) -> np.ndarray:
    x = to_unit(x)
    x[[3, 7], 0, 2] = np.nan
    x[9, 0, 0, 0] = np.inf
    return x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: stream(test=to_unit),
            "the test inputs of experience 'A' are float32, the training inputs of experience 'A' "
            "uint8: give all in the same type and the same units",
        ),
        (
            lambda: stream(second=to_unit),
            "the training inputs of experience 'B' are float32, the training inputs of",
        ),
        (
            lambda: stream(second=enlarged),
            "experience 'B' have shape (1, 16, 16), the training inputs of experience 'A' "
            "(1, 8, 8): give all the same shape",
        ),
        (
            lambda: stream(test=lambda x: x.repeat(3, 1)),
            "the test inputs of experience 'A' have shape (3, 8, 8)",
        ),
        (
            lambda: stream(np.float32, to_unit),
            "the training inputs of experience 'A' reach 16, the training inputs of experience 'B' "
            "1 (means",
        ),
        (lambda: stream(to_unit, to_unit, lambda x: 255 * x), "give all in the same units"),
        (
            lambda: stream(second=with_nan, first=to_unit),
            "3 of the training inputs of experience 'B' hold nan or infinity, the first at row 3: ",
        ),
        (lambda: stream(np.uint16, np.uint16), "are uint16: store images as uint8 (0..255), or as"),
        (lambda: stream(np.int64, np.int64), "are int64: store images as uint8 (0..255), or as"),
        (
            lambda: class_incremental(
                "mine", [[0, 1]], "ab", Samples.of(pixels(), LABELS), Samples.of(pixels(), LABELS)
            ),
            "labels reach 3, but there are 2 class names (0..1): name every class, or number",
        ),
    ],
)
def test_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert message in str(caught.value)
    assert "stream 'mine'" in str(caught.value)


def test_every_part_that_is_not_finite_is_named() -> None:
    with pytest.raises(BadInput) as caught:
        stream(with_nan, with_nan)
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "dtype"), [(lambda x: x > 8, torch.uint8), (lambda x: x / 16, torch.float32)]
)
def test_types_that_have_one_meaning_are_converted(change: Any, dtype: torch.dtype) -> None:
    source = stream(change, change)[0].train.source
    assert source.dtype == dtype
    expected = torch.from_numpy(change(pixels()[LABELS // 2 == 0])).to(dtype)
    assert torch.equal(source, expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_darker_or_sparser_experiences_are_no_other_unit(share: float) -> None:
    def darker(x: np.ndarray) -> np.ndarray:
        return (to_unit(x) * (np.random.default_rng(1).random(x.shape) < share)).astype(np.float32)

    stream(to_unit, darker)


def test_numbers_of_another_experience_may_be_larger() -> None:
    def numbers(factor: float) -> Change:
        return lambda x: factor * (x.reshape(len(x), -1)[:, :5] + np.float32(1))

    stream(numbers(1), numbers(100))
    with pytest.raises(BadInput, match="give all in the same units"):
        stream(numbers(1), numbers(1), lambda x: 100 * x)


def test_token_ids_may_be_any_whole_numbers() -> None:
    def tokens(largest: int) -> Change:
        return lambda x: np.full((len(x), 5), largest, np.int32)

    stream(tokens(3), tokens(30000))


def test_an_experience_without_validation_data_is_named() -> None:
    e, f = stream().experiences
    held = Experience(e.name, e.classes, e.task, e.train, e.train, e.test)
    with pytest.raises(BadInput, match="experience 'B' has no validation data, but others have"):
        Stream("mine", "class", (held, f), tuple("abcd"))
    assert not len(stream()[0].validation)  # none at all is fine


def test_bytes_without_a_preprocess_are_scaled_and_never_fed_as_0_to_255() -> None:
    x, y = torch.randint(256, (40, 1, 4, 4)).to(torch.uint8), torch.arange(40) % 2
    samples = Samples.of(x, y)
    stream = class_incremental("bytes", [[0], [1]], ["a", "b"], samples, samples)
    seen = stream.preprocess(stream[0].train.gather(torch.arange(20)))
    assert torch.allclose(seen, x[y == 0].float() / 255)
    given = class_incremental(
        "bytes", [[0], [1]], ["a", "b"], samples, samples, preprocess=Preprocess((0,), (1,))
    )
    assert given.preprocess.std == (1.0,)  # who asks for them as they are gets them
    floats = Samples.of(x.float(), y)
    plain = class_incremental("floats", [[0], [1]], ["a", "b"], floats, floats)
    assert plain.preprocess.mean is None
