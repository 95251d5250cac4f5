"""Curricula: built-in orders, the contract, and what a curriculum may see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import cl_platform as clp
from cl_platform import Curriculum, Stream
from cl_platform.config.signatures import build
from cl_platform.core.order.curriculum import ask
from cl_platform.errors import ConfigError, CurriculumError


def order_of(curriculum: object, **settings: object) -> list[int]:
    return clp.run("blobs", "finetune", curriculum=curriculum, out=None, **settings).order  # type: ignore[arg-type]


def test_built_in_orders() -> None:
    assert order_of("as_given") == [0, 1, 2, 3, 4]
    assert order_of("reverse") == [4, 3, 2, 1, 0]
    assert order_of([2, 0, 1, 4, 3]) == [2, 0, 1, 4, 3]
    assert order_of("2,0,1,4,3") == [2, 0, 1, 4, 3]


def test_random_orders_follow_a_seed() -> None:
    first, second = order_of("random"), order_of("random", seed=1)
    assert sorted(first) == [0, 1, 2, 3, 4]
    assert first == order_of("random")
    assert first != second
    fixed = {"name": "random", "seed": 7}
    assert order_of(fixed) == order_of(fixed, seed=1)


def test_class_orders() -> None:
    curriculum = {"name": "reverse", "level": "classes"}
    result = clp.run("blobs", "finetune", curriculum=curriculum, out=None)
    assert result.order == list(range(9, -1, -1))
    assert next(e["classes"] for e in result.experiences) == [8, 9]


class Curious(Curriculum):
    """Remembers what it was shown."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        assert all(len(e.test) == 0 for e in stream.experiences)
        assert all(len(e.train) for e in stream.experiences)
        return range(len(stream))


def test_a_curriculum_never_sees_test_data() -> None:
    clp.run("blobs", "finetune", curriculum=Curious(), out=None)


class Wrong(Curriculum):
    """Forgets an experience."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return (0, 2, 2)


def test_a_wrong_order_is_named() -> None:
    stream = build("stream", {"name": "blobs", "experiences": 3})
    with pytest.raises(
        CurriculumError,
        match=r"Wrong' returned \(0, 2, 2\): expected a permutation of 0\.\.2; 1 is missing",
    ):
        ask(stream, Wrong(), 0)


def test_an_explicit_order_needs_its_order() -> None:
    with pytest.raises(ConfigError, match=r"curriculum\.order is missing"):
        clp.run("blobs", "finetune", curriculum="explicit", out=None)


def test_an_order_with_repetitions_names_the_stream_that_repeats() -> None:
    with pytest.raises(
        CurriculumError, match=r"--stream repeating.*stream\.order=\[0,1,2,1,3\]"
    ) as caught:
        order_of("0,1,2,1,3")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
