"""Slices whose classes come and go."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from cl_platform.errors import BadInput
from streams.images import blobs
from streams.known.gram import gram
from streams.schedules.gaussian import gaussian_schedule
from tests.streams.schedules.conftest import Numbered, numbers


def test_each_sample_is_learned_once_in_slices_of_equal_size(numbered: Numbered) -> None:
    stream = gaussian_schedule(inner=numbered((40, 20, 30, 33)), slices=20, width=0.1)
    found = numbers(stream)
    assert sorted(i for part in found for i in part) == list(range(123))
    assert {len(part) for part in found} == {6, 7}
    assert all({*e.classes} == e.train.classes for e in stream.experiences)
    assert list(stream.visits) == sorted(stream.visits)
    assert {*stream.visits} == {0, 1}


def test_without_width_classes_follow_each_other(numbered: Numbered) -> None:
    stream = gaussian_schedule(inner=numbered(), slices=8, width=0)
    assert [e.classes for e in stream.experiences] == [
        (0,),
        (0,),
        (1,),
        (1,),
        (2,),
        (2,),
        (3,),
        (3,),
    ]
    assert stream.visits == (0, 0, 0, 0, 1, 1, 1, 1)


def test_classes_are_normal_around_their_time(numbered: Numbered) -> None:
    stream = gaussian_schedule(inner=numbered((1000,) * 10), slices=100, width=0.05)
    counts = np.stack([e.train.y.bincount(minlength=10) for e in stream.experiences])
    time = (np.arange(100) + 0.5) / 100
    for c in range(2, 8):  # away from the ends, where times are pushed inwards
        share = counts[:, c] / counts[:, c].sum()
        mean = (share * time).sum()
        assert mean == pytest.approx((c + 0.5) / 10, abs=0.01)
        assert np.sqrt((share * (time - mean) ** 2).sum()) == pytest.approx(0.05, abs=0.005)


def test_a_great_width_has_no_order(numbered: Numbered) -> None:
    def p_value(width: float) -> float:
        stream = gaussian_schedule(inner=numbered((400,) * 4), slices=10, width=width)
        counts = [e.train.y.bincount(minlength=4).tolist() for e in stream.experiences]
        return float(chi2_contingency(counts).pvalue)

    assert p_value(100) > 1e-3
    assert p_value(0.3) < 1e-9


def test_domains_come_and_go_as_wholes() -> None:
    inner = gram(experiences=3, samples=60)
    stream = gaussian_schedule(inner=inner, slices=6, width=0)
    assert [len(e.train) for e in stream.experiences] == [30] * 6
    assert stream.visits == (0, 0, 1, 1, 2, 2)
    assert all({*e.classes} == {0, 1} for e in stream.experiences)


def test_a_thousand_slices(numbered: Numbered) -> None:
    stream = gaussian_schedule(inner=numbered((500,) * 4), slices=1000)
    assert len(stream) == 1000
    assert len(stream.scored) == 2
    assert len({id(e.train.source) for e in stream.experiences}) == 1  # nothing is copied


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slices": 21}, "has 20 training samples; give fewer"),
        ({"slices": 1}, "none of them is in the time of experience"),
        ({"inner": blobs(scenario="task")}, "gaussian-schedule mixes the samples of several tasks"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        gaussian_schedule(**{"inner": blobs(samples_per_class=2), **given})
