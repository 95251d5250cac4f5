"""Few training samples of each class: exactly so many, the same in every run, or those of a list."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform.config.documents import parse
from cl_platform.config.run_config import apply_settings, parse_config, with_flags
from cl_platform.config.signatures import build
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from streams.data.own import Rows, Source
from streams.doors import stream_of
from sweeps.space import points
from sweeps.spec import parse_spec
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "few_shot.md").read_text()

CLASSES = [f"class{c}" for c in range(7)]


def rows() -> Iterator[tuple[Any, Rows]]:
    """7 classes of 12 training rows in turn, and of 3 test rows."""
    for part, n in (("train", 12), ("test", 3)):
        x = np.arange(7 * n * 2, dtype=np.float32).reshape(-1, 2)
        yield part, Rows(x, [CLASSES[i % 7] for i in range(7 * n)], {})


def shared(**given: Any) -> clp.Stream:
    return stream_of(Source("mine", rows), {"experiences": [3, 2, 2], **given})


def counts(stream: clp.Stream) -> list[list[int]]:
    """How many training samples each class of each experience has."""
    return [[int((e.train.y == c).sum()) for c in e.classes] for e in stream.experiences]


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        (5, [[5, 5, 5], [5, 5], [5, 5]]),
        ([None, 5], [[12, 12, 12], [5, 5], [5, 5]]),
        ([None, 5, 1], [[12, 12, 12], [5, 5], [1, 1]]),
        ([12], [[12, 12, 12], [12, 12], [12, 12]]),
    ],
    ids=str,
)
def test_sessions_have_exactly_shots_times_ways_samples(
    shots: Any, expected: list[list[int]]
) -> None:
    assert counts(shared(shots=shots)) == expected


def test_a_seed_draws_the_same_samples_and_another_one_others() -> None:
    stream, again, other = (shared(shots=[None, 5], shots_seed=seed) for seed in (0, 0, 1))
    identities = [[e.identity for e in s.experiences] for s in (stream, again, other, shared())]
    assert identities[0] == identities[1]
    assert identities[0][0] == identities[2][0] == identities[3][0]  # the base is whole
    assert not {*identities[0][1:]} & {*identities[2][1:], *identities[3][1:]}
    assert [len(e.test) for e in stream.experiences] == [9, 6, 6]


def test_more_shots_contain_fewer_and_other_experiences_stay() -> None:
    few, many = shared(shots=2), shared(shots=[4, 2])
    assert set(few[0].train.index.tolist()) < set(many[0].train.index.tolist())
    assert few[1].identity == many[1].identity


def test_every_sample_is_drawn_in_some_seed() -> None:
    seen = {
        i for s in range(40) for i in shared(shots=[None, 2], shots_seed=s)[1].train.index.tolist()
    }
    assert seen == set(shared()[1].train.index.tolist())


def test_the_name_tells_of_them() -> None:
    assert shared(shots=[None, 5]).name == "split-mine (shots: all, 5)"
    assert shared(shots=3).name == "split-mine (shots: 3)"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"shots": [None, 13]},
            "stream.shots=13: there are 12 training samples of class 'class3' in experience 'class3 "
            "class4'; expected 13",
        ),
        (
            {"shots": [None, 1, 1, 1]},
            "stream.shots has 4 items, and the stream 3 experiences: give at most one for each; the "
            "last holds for all that follow",
        ),
        ({"shots": []}, "stream.shots has 0 items, and the stream 3 experiences: give at most"),
        ({"shots": 2, "samples": 4}, "stream.samples and stream.shots both thin the data"),
        ({"shots": 0}, "stream.shots=0: input should be greater than 0"),
        ({"shots": [None, 0]}, "stream.shots=[None, 0]: input should be a valid integer; or"),
        ({"shots": 13, "validation": 0.25}, "stream.shots=13: there are 9 training samples"),
        (
            {"index_lists": "nowhere"},
            "stream.index_lists=nowhere: expected a folder with session_1",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        shared(**given)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def listed(folder: Path, **lists: str) -> dict[str, Any]:
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    return {"index_lists": str(folder)}


def test_lists_name_the_samples_of_sessions(tmp_path: Path) -> None:
    """Rows 3, 10, 17... are of class 3, rows 4, 11... of class 4; lines may end as on Windows."""
    given = listed(tmp_path, session_2="10\r\n3\r\n25\r\n4\r\n", session_3="5\n6\n12\n13\n")
    stream = shared(**given, shots=[None, 2])
    assert [e.train.index.tolist() for e in stream.experiences[1:]] == [
        [3, 4, 10, 25],
        [5, 6, 12, 13],
    ]
    assert stream[0].identity == shared()[0].identity
    assert stream[1].train.y.tolist() == [3, 4, 3, 4]
    (tmp_path / "session_3.txt").unlink()
    assert counts(shared(**given, shots=[None, 2])) == [[12, 12, 12], [2, 2], [2, 2]]
    assert stream.name == "split-mine (listed samples)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3\n10\n4\n", "names 1 training samples of class 'class4' in experience 'class3 class4'; "),
        ("3\n5\n4\n11\n", "names 4 samples, of which experience 'class3 class4' has 3 for training (such as 5)"),
        ("3\n3\n4\n11\n", "names 4 samples, of which experience 'class3 class4' has 3 for training (or some of"),
        ("train/3.jpg\n", "cannot be read (invalid literal for int() with base 10: 'train/3.jpg'); expected"),
        ("", "names 0 samples, of which experience 'class3 class4' has 0 for training"),
    ],
    ids=["too few of a class", "another class", "twice", "paths", "empty"],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    given = listed(tmp_path, session_2=text)
    with pytest.raises(BadInput) as caught:
        shared(**given, shots=[None, 2])
    assert str(caught.value).startswith(f"{tmp_path / 'session_2.txt'} {says}")
    assert "\n" not in str(caught.value)


def test_open_streams_of_other_shots_share_the_state_of_the_base() -> None:
    """A closed one has all its data in every key, those of the sessions included."""

    def keys(shots: Any, seed: int = 0) -> tuple[str, ...]:
        stream = {"name": "split-digits", "experiences": [4, 3, 3], "open": True}
        few = {**stream, "shots": shots, "shots_seed": seed}
        return make_plan(parse_config({"stream": few, "strategy": "finetune"})).keys

    five = keys([None, 5])
    for others in (keys([None, 1]), keys([None, 5], seed=1)):
        assert [k == other for k, other in zip(five, others, strict=True)] == [
            True,
            True,
            False,
            False,
        ]
    assert [k == other for k, other in zip(five, keys([None, 5, 1]), strict=True)][1:] == [
        True,
        True,
        False,
    ]


def test_what_the_page_says_can_be_run() -> None:
    commands = re.findall(r"^clp run (.*)$", PAGE, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command)
        given = [*zip(words[::2], words[1::2], strict=True)]
        flags = {word[2:].replace("-", "_"): value for word, value in given if word != "--set"}
        changes = [value for word, value in given if word == "--set"]
        parse_config(apply_settings(with_flags({}, flags), changes))
    (document,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(points(parse_spec(parse(document)))) == 30


@pytest.mark.parametrize(
    ("name", "base", "base_samples", "test"),
    [
        ("fscil-omniglot", 200, 3000, [1000, *[25] * 8]),
        ("fscil-clinc150", 110, 11000, [3300, *[150] * 8]),
        ("fscil-cifar100", 60, 30000, [6000, *[500] * 8]),
    ],
)
def test_the_standard_protocol_has_8_sessions_of_5_ways_and_5_shots(
    real_data: Path, name: str, base: int, base_samples: int, test: list[int]
) -> None:
    stream = build("stream", {"name": name})
    assert [len(e.classes) for e in stream.experiences] == [base, *[5] * 8]
    assert [len(e.train) for e in stream.experiences] == [base_samples, *[25] * 8]
    assert [len(e.test) for e in stream.experiences] == test
    for e in stream.experiences[1:]:
        assert torch.bincount(e.train.y)[list(e.classes)].tolist() == [5] * 5
