"""Experiences and classes that come again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from cl_platform import Stream
from cl_platform.errors import BadInput
from streams.images import blobs
from streams.schedules.repeating import repeating
from tests.streams.schedules.conftest import Numbered, numbers


def test_an_order_that_is_written_down(numbered: Numbered) -> None:
    inner = numbered((10,) * 8)
    stream = repeating(inner=inner, order=[0, 1, 2, 1, 3])
    assert [e.identity for e in stream.experiences] == [inner[k].identity for k in (0, 1, 2, 1, 3)]
    assert stream.columns == inner.experiences
    assert stream.visits == (0, 1, 2, 1, 3)
    assert stream.held_out == ()


def test_what_does_not_occur_is_held_out(numbered: Numbered) -> None:
    stream = repeating(inner=numbered((10,) * 8), order=[3, 1, 3])
    assert [e.name for e in stream.scored] == ["6 7", "2 3", "0 1", "4 5"]
    assert stream.visits == (0, 1, 0)
    assert stream.held_out == (2, 3)


@pytest.mark.parametrize("recurrence", [0, 0.3, 0.5, 0.8])
def test_a_rate_is_the_share_of_returns(numbered: Numbered, recurrence: float) -> None:
    inner = numbered((4,) * 10)
    for seed in range(5):
        order = repeating(inner=inner, recurrence=recurrence, seed=seed).visits
        assert 1 - 5 / len(order) == pytest.approx(recurrence, abs=0.1)
        assert list(dict.fromkeys(order)) == [0, 1, 2, 3, 4]  # new ones come in their order
        assert not any(a == b for a, b in pairwise(order))
    if recurrence == 0.8:
        assert Counter(order) != Counter(repeating(inner=inner, recurrence=0.8, seed=9).visits)
        assert order == repeating(inner=inner, recurrence=0.8, seed=4).visits


def test_parts_are_dealt_out_evenly_and_used_once(numbered: Numbered) -> None:
    stream = repeating(inner=numbered((9, 12, 6, 6)), order=[0, 1, 0, 0], samples="part")
    found = numbers(stream)
    assert sorted(i for part in found for i in part) == list(range(33))
    counts = [e.train.y.bincount(minlength=4).tolist() for e in stream.experiences]
    assert counts == [[3, 4, 0, 0], [0, 0, 6, 6], [3, 4, 0, 0], [3, 4, 0, 0]]
    assert [e.name for e in stream.experiences] == [
        *("0 1 (1 of 3)", "2 3", "0 1 (2 of 3)", "0 1 (3 of 3)")
    ]
    assert [len(e.test) for e in stream.scored] == [6, 6]


@pytest.mark.parametrize("samples", ["same", "part"])
def test_classes_return(numbered: Numbered, samples: str) -> None:
    inner = numbered((30,) * 8)
    stream = repeating(inner=inner, level="classes", recurrence=0.6, samples=samples)  # type: ignore[arg-type]
    assert stream.visits == (0, 1, 2, 3)
    for k, e in enumerate(stream.experiences):
        assert {*inner[k].classes} <= {*e.classes} <= {*range(2 * k + 2)}
        assert e.train.classes == {*e.classes}
    returned = sum(len(e.classes) - 2 for e in stream.experiences) / (2 + 4 + 6)
    assert 0.3 < returned < 0.9
    found = [i for part in numbers(stream) for i in part]
    if samples == "part":
        assert sorted(found) == list(range(240))
    else:
        assert len(found) == 240 + 30 * round(returned * 12)
    assert all(
        len(e.classes) == 2
        for e in repeating(inner=inner, level="classes", recurrence=0).experiences
    )


def many() -> Stream:
    return blobs(samples_per_class=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": [0, 5]}, r"stream\.order=0,5: give the numbers of experiences, from 0 to 4"),
        ({"order": []}, "give the numbers of experiences"),
        ({"order": [0, 1], "level": "classes"}, "stream.order is of experiences"),
        ({"order": [0, 1] * 5, "samples": "part"}, "'blob 0 blob 1' has 4 training samples for 5"),
        ({"inner": blobs(experiences=1)}, "a single experience"),
        (
            {"inner": blobs(scenario="task"), "level": "classes"},
            "mixes the samples of several tasks",
        ),
        ({"inner": repeating(inner=many(), order=[0, 0])}, "give the stream inside it"),
        ({"inner": blobs(online=True)}, "is online, .* give stream.samples=part"),
        ({"inner": "gram", "level": "classes"}, "has the same classes in several"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict, message: str) -> None:
    from streams.known.gram import gram

    given = {"inner": many(), **given}
    if given["inner"] == "gram":
        given["inner"] = gram(experiences=2, samples=4)
    with pytest.raises(BadInput, match=message) as caught:
        repeating(**given)
    assert "\n" not in str(caught.value)


def test_repetitions_keep_their_head_in_the_task_scenario() -> None:
    stream = repeating(inner=blobs(scenario="task", experiences=3), order=[0, 1, 0, 2])
    assert [e.classes for e in stream.experiences] == [(0, 1), (2, 3), (0, 1), (4, 5)]
    assert stream.task_classes().sum() == 6
