"""Blurred boundaries."""

from __future__ import annotations

import pytest
from scipy.stats import chi2_contingency

from cl_platform import Stream
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError
from streams.images import blobs
from streams.schedules.blurry import blurry
from tests.streams.schedules.conftest import Numbered, numbers

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 6}


def p_value(stream: Stream) -> float:
    """Return how probable such class histograms are if samples are at random places."""
    counts = [e.train.y.bincount(minlength=stream.n_classes).tolist() for e in stream.experiences]
    return float(chi2_contingency(counts).pvalue)


@pytest.mark.parametrize("blur", [0.25, 0.7, 1.0])
def test_each_sample_is_learned_once_and_sizes_stay(numbered: Numbered, blur: float) -> None:
    inner = numbered((40, 20, 30, 31, 8, 9))
    stream = blurry(inner=inner, blur=blur)
    found = numbers(stream)
    assert sorted(i for part in found for i in part) == list(range(138))
    assert [len(part) for part in found] == [60, 61, 17]
    assert found != numbers(inner)
    for e in stream.experiences:  # with the labels that they had
        assert set(e.classes) == e.train.classes
    labels = {
        int(x): int(y) for e in inner.experiences for x, y in zip(e.train.x, e.train.y, strict=True)
    }
    assert all(
        labels[int(x)] == y
        for e in stream.experiences
        for x, y in zip(e.train.x, e.train.y, strict=True)
    )


def test_the_share_of_other_experiences_is_as_said(numbered: Numbered) -> None:
    stream = blurry(inner=numbered((500,) * 8), blur=0.4)
    for k, part in enumerate(numbers(stream)):
        others = sum(i // 1000 != k for i in part) / len(part)
        assert others == pytest.approx(0.4 * (1 - 1 / 4), abs=0.05)


def test_more_blur_moves_the_same_samples_and_more(numbered: Numbered) -> None:
    inner = numbered()
    little, much = (blurry(inner=inner, blur=b, seed=3) for b in (0.2, 0.6))
    for own, first, second in zip(*map(numbers, (inner, little, much)), strict=True):
        assert len({*own} & {*second}) < len({*own} & {*first})
    assert numbers(blurry(inner=inner, blur=0.2, seed=4)) != numbers(little)
    assert numbers(blurry(inner=inner, blur=0.2, seed=3)) == numbers(little)


def test_full_blur_has_no_order(numbered: Numbered) -> None:
    inner = numbered((200,) * 4)
    assert min(p_value(blurry(inner=inner, blur=1, seed=s)) for s in range(10)) > 1e-3
    assert p_value(blurry(inner=inner, blur=0.5)) < 1e-9


def test_without_blur_it_is_the_inner_stream(numbered: Numbered) -> None:
    inner, same = numbered(), blurry(inner=numbered(), blur=0)
    assert [e.identity for e in inner.experiences] == [e.identity for e in same.experiences]
    settings = {"strategy": "er", "epochs": 1}
    plain = make_plan(parse_config({"stream": BLOBS, **settings}))
    blurred = make_plan(
        parse_config({"stream": {"name": "blurry", "inner": BLOBS, "blur": 0}, **settings})
    )
    assert plain.keys == blurred.keys
    more = make_plan(
        parse_config({"stream": {"name": "blurry", "inner": BLOBS, "blur": 0.5}, **settings})
    )
    assert more.keys[0] != plain.keys[0]


def test_it_is_scored_on_the_inner_experiences(numbered: Numbered) -> None:
    inner = numbered(share=0.25)
    stream = blurry(inner=inner, blur=0.5)
    assert stream.columns == inner.experiences
    assert [e.task for e in stream.experiences] == [0, 1]
    assert stream.held_out == ()
    assert all(len(e.test) == 0 < len(e.validation) for e in stream.experiences)


def test_domains_are_blurred_as_well() -> None:
    stream = build(
        "stream", {"name": "blurry", "inner": {"name": "gram", "experiences": 3}, "blur": 0.5}
    )
    assert [e.classes for e in stream.experiences] == [(0, 1)] * 3
    assert [len(e.train) for e in stream.experiences] == [500] * 3


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (blobs(scenario="task"), "mixes the samples of several tasks.*scenario=class"),
        (blurry(inner=blobs()), "give the stream inside it"),
        ("blobs", "give a stream object"),
    ],
)
def test_what_makes_no_sense_is_refused(inner: Stream, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        blurry(inner=inner, blur=0.5)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_faults_of_the_inner_stream_are_named_in_full() -> None:
    with pytest.raises(ConfigError, match=r"^stream\.inner\.wide is unknown\. Known: scen"):
        build("stream", {"name": "blurry", "inner": {"name": "blobs", "wide": 3}})
    with pytest.raises(ConfigError, match=r"^stream\.inner is missing: give --set stream\.inner="):
        build("stream", {"name": "blurry"})
    with pytest.raises(ConfigError, match="give what is around it as an object, too"):
        build("stream", {"name": "blurry", "inner": blobs()})
