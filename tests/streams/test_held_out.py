"""Columns that are scored and never learned: which a stream gets, and by what it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput, ClpError
from streams.data.own import Rows, Source
from streams.doors import stream_of

N = 120


def rows() -> Any:
    x = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    columns = {"place": [f"p{i // 30}" for i in range(N)]}
    yield "train", Rows(x, [f"c{i % 6}" for i in range(N)], columns)


def shared(**given: Any) -> clp.Stream:
    return stream_of(Source("mine", rows), {"test_share": 0.25, **given})


def blobs(**given: Any) -> clp.Stream:
    stream: clp.Stream = build("stream", {"name": "blobs", "samples_per_class": 10, **given})
    return stream


def names(parts: Any) -> list[str]:
    return [e.name for e in parts]


@pytest.mark.parametrize(
    ("given", "learned", "held"),
    [
        ({"experiences": 3, "held_out": [0]}, ["c2 c3", "c4 c5"], ["c0 c1"]),
        ({"experiences": 3, "held_out": ["c2 c3", 0]}, ["c4 c5"], ["c2 c3", "c0 c1"]),
        ({"experiences": 2, "held_out": [["c1"], [5]]}, ["c0 c2", "c3 c4"], ["c1", "c5"]),
        ({"experiences": [["c5", "c0"]], "held_out": [["c1", "c2"]]}, ["c5 c0"], ["c1 c2"]),
        ({"by": "place", "held_out": ["p2", "p0"]}, ["p1", "p3"], ["p2", "p0"]),
        ({"experiences": 3, "scenario": "domain", "held_out": [[0, 3]]}, None, None),
    ],
)
def test_what_is_held_out_is_scored_behind_what_is_learned(
    given: dict[str, Any], learned: list[str] | None, held: list[str] | None
) -> None:
    if learned is None:  # sizes that differ are no domains
        with pytest.raises(BadInput, match="same classes in every experience"):
            shared(**given)
        return
    stream = shared(**given)
    assert names(stream.experiences) == learned
    assert names(stream.scored) == [*learned, *held]
    assert [e.task for e in stream.scored] == [*range(len(stream.scored))]
    assert stream.held_out == tuple(range(len(learned), len(stream.scored)))
    for e in stream.scored:
        assert len(e.train)
        assert len(e.test)
    assert stream.name.endswith(f"{len(held)} held out")


def test_classes_that_are_held_out_are_numbered_last() -> None:
    stream = shared(experiences=2, held_out=[["c1"], ["c0"]])
    assert stream.class_names == ("c2", "c3", "c4", "c5", "c0", "c1")
    assert [e.classes for e in stream.scored] == [(0, 1), (2, 3), (5,), (4,)]


def test_domains_are_held_out_with_the_classes_of_all() -> None:
    stream = shared(experiences=3, scenario="domain", held_out=[1])
    assert [e.classes for e in stream.scored] == [(0, 1)] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"experiences": 3, "held_out": [3]}, "different ones of its 3, not all"),
        ({"experiences": 3, "held_out": [0, 0]}, "different ones of its 3, not all"),
        ({"experiences": 3, "held_out": [0, 1, 2]}, "different ones of its 3, not all"),
        ({"experiences": 3, "held_out": ["c9"]}, "0: c0 c1, 1: c2 c3, 2: c4 c5"),
        ({"experiences": 2, "held_out": [["c9"]]}, "unknown"),
        ({"experiences": [["c0"]], "held_out": [["c0"]]}, "in stream.experiences as well"),
        ({"held_out": [["c0"]], "class_seed": 1}, "without class_seed"),
        ({"experiences": 3, "held_out": [0], "open": True}, "no columns of its own"),
    ],
)
def test_what_cannot_be_held_out_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        shared(**given)
    assert len(str(caught.value)) < 500


def test_permuted_and_rotated_streams_hold_domains_out() -> None:
    for name in ("permuted-digits", "rotated-digits"):
        stream = build("stream", {"name": name, "experiences": 3, "held_out": [0]})
        plain = build("stream", {"name": name, "experiences": 3})
        assert names(stream.experiences) == names(plain.experiences[1:])
        assert names(stream.columns)[-1] == plain[0].name


def test_columns_are_held_out_with_all_that_belongs_to_them() -> None:
    plain = blobs(experiences=3)
    again = replace(
        plain, experiences=tuple(plain[i] for i in (0, 1, 0, 2)), columns=plain.experiences
    )
    stream = again.holding_out([0])
    assert names(stream.experiences) == names([plain[1], plain[2]])
    assert stream.held_out == (2,)


def test_another_data_set_is_a_column_with_classes_of_its_own_names() -> None:
    inner = {"name": "blobs", "experiences": 2, "samples_per_class": 10}
    other = {"name": "blobs", "experiences": 3, "samples_per_class": 10, "data_seed": 1}
    section = {"name": "with-held-out", "inner": inner, "held_out": [other]}
    stream = build("stream", section)
    assert len(stream) == 2
    assert stream.n_classes == 6
    assert [e.classes for e in stream.scored] == [(0, 1), (2, 3), (0, 1), (2, 3), (4, 5)]
    assert names(stream.scored)[2:] == ["blobs: blob 0 blob 1", *names(stream.scored)[3:]]
    plain = blobs(experiences=2)
    assert [e.identity for e in stream.experiences] == [e.identity for e in plain.experiences]
    result = clp.run(section, "finetune", out=None)
    assert result.matrix.values.shape == (3, 5)
    assert (result.matrix.values[-1, 4], result.matrices["task"].values[0, 4]) != (1.0, 0.0)
    assert result.matrix.values[-1, 4] == 0  # nothing has taught its classes


def test_a_data_set_of_other_inputs_is_refused() -> None:
    section = {"name": "with-held-out", "inner": "split-digits", "held_out": ["blobs"]}
    with pytest.raises(ClpError, match="shape"):
        build("stream", section)


@pytest.mark.parametrize("name", ["blurry", "repeating"])
def test_what_is_held_out_inside_a_schedule_is_never_trained(name: str) -> None:
    inner = {"name": "split-digits", "samples": 20}
    plain = build("stream", {"name": name, "inner": inner})
    held = build("stream", {"name": name, "inner": {**inner, "held_out": [1]}})
    assert held.held_out == (4,)
    assert not {2, 3} & {int(c) for e in held.experiences for c in e.train.y}
    if name == "blurry":
        with pytest.raises(BadInput, match="hold it out of the stream inside"):
            plain.holding_out([1])
    else:
        assert plain.holding_out([1]).held_out == (4,)
