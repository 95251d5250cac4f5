"""Sequences whose relations are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cl_platform.errors import BadInput
from streams.data.datasets import Dataset, load_dataset
from streams.known.related import related

SETS = {"datasets": ["digits", "others"], "classes": 3}


@pytest.fixture
def two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits under any name."""

    def load(name: str, *given: object) -> Dataset:
        return replace(load_dataset("digits"), name=name)

    monkeypatch.setattr("streams.known.related.load_dataset", load)


@pytest.mark.usefixtures("two_sets")
def test_a_positive_sequence_has_further_classes_of_one_set() -> None:
    stream = related("positive", **SETS)
    assert stream.scenario == "task"
    assert [e.classes for e in stream.experiences] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert all(len(e.validation) for e in stream.experiences)


@pytest.mark.usefixtures("two_sets")
def test_an_unrelated_one_has_a_set_each() -> None:
    stream = related("none", experiences=2, **SETS)
    assert stream.class_names[2:4] == ("digits/2", "others/0")
    assert [e.classes for e in stream.experiences] == [(0, 1, 2), (3, 4, 5)]


@pytest.mark.usefixtures("two_sets")
def test_a_negative_one_rotates_the_labels_of_the_same_samples() -> None:
    stream = related("negative", **SETS)
    first, second, third = (e.train for e in stream.experiences)
    assert torch.equal(first.x, second.x)
    assert torch.equal((first.y + 1) % 3, second.y)
    assert torch.equal((first.y + 2) % 3, third.y)
    assert len({e.identity for e in stream.experiences}) == 3
    assert len({e.name for e in stream.experiences}) == 3


@pytest.mark.usefixtures("two_sets")
def test_a_mixed_one_has_each_in_turn() -> None:
    stream = related("mixed", experiences=4, **SETS)
    classes = [(0, 1, 2), (6, 7, 8), (0, 1, 2), (3, 4, 5)]
    assert [e.classes for e in stream.experiences] == classes
    assert [e.task for e in stream.experiences] == [0, 1, 2, 3]
    first, turned = stream[0].train, stream[2].train
    assert torch.equal((first.y + 1) % 3, turned.y)


@pytest.mark.usefixtures("two_sets")
@pytest.mark.parametrize(
    ("relation", "given", "message"),
    [
        ("negative", {"experiences": 4}, "rotate 3 labels 3 times, which brings them back"),
        ("none", {}, r"need 3 different data sets.*stream\.datasets has 2"),
        ("positive", {"experiences": 4}, "digits has 10 classes and not the 12 that are needed"),
        ("none", {"datasets": ["digits/odd"]}, "digits has no group 'odd'"),
    ],
)
def test_what_does_not_fit_is_refused(relation: str, given: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        related(relation, **SETS | given)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 500


def test_texts(real_data: Path) -> None:
    assert real_data.is_dir()
    stream = related("none", samples=8)
    names = {name.partition("/")[0] for name in stream.class_names}
    assert names == {"clinc150", "trec", "banking77"}
    assert [len(e.train) for e in stream.experiences] == [8, 8, 8]
