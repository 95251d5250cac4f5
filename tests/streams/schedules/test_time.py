"""Many steps, few columns."""

from __future__ import annotations

import pytest

from cl_platform.errors import BadInput
from streams.images import blobs
from streams.schedules.repeating import repeating
from streams.schedules.time import time
from tests.streams.schedules.conftest import Numbered, numbers


def test_neighbours_are_scored_together(numbered: Numbered) -> None:
    inner = numbered((4,) * 10, share=0.25)
    stream = time(inner=inner, columns=2)
    assert numbers(stream) == numbers(inner)
    assert stream.visits == (0, 0, 0, 1, 1)
    assert [e.name for e in stream.columns] == ["0 1 ... 4 5", "6 7 ... 8 9"]
    assert [e.classes for e in stream.columns] == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9)]
    assert [len(e.test) for e in stream.columns] == [18, 12]
    assert [len(e.train) for e in stream.columns] == [18, 12]
    assert all(len(e.test) == 0 for e in stream.experiences)


def test_as_many_columns_as_experiences_are_the_experiences() -> None:
    inner = blobs(experiences=3, samples_per_class=2)
    stream = time(inner=inner, columns=3)
    assert [e.identity for e in stream.columns] == [e.identity for e in inner.experiences]


def test_what_is_held_out_stays_so() -> None:
    held = repeating(inner=blobs(samples_per_class=2), order=[4, 1, 2])
    stream = time(inner=held, columns=1)
    assert [e.name for e in stream.scored][1:] == ["blob 0 blob 1", "blob 6 blob 7"]
    assert stream.held_out == (1, 2)


def test_more_columns_than_experiences_are_refused() -> None:
    with pytest.raises(BadInput, match=r"stream\.columns=6: 'blobs' has 5 experiences"):
        time(inner=blobs(samples_per_class=2), columns=6)
