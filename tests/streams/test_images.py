"""Streams: sizes, identities, orders, domains, held-out data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Samples, class_incremental
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput, CurriculumError
from streams.data.datasets import IMAGES, TEXTS
from streams.data.sources import SOURCES
from streams.data.text_sources import TEXT_SOURCES
from streams.images import split_digits


def digits(**parameters: object) -> clp.Stream:
    return build("stream", {"name": "split-digits", **parameters})


def sizes(stream: clp.Stream) -> list[int]:
    return [len(e.classes) for e in stream.experiences]


@pytest.mark.parametrize(
    ("experiences", "expected"),
    [
        (5, [2] * 5),
        (3, [4, 3, 3]),
        (1, [10]),
        (10, [1] * 10),
        ([4, 3, 3], [4, 3, 3]),
        ([1, 9], [1, 9]),
    ],
)
def test_no_class_is_dropped(experiences: object, expected: list[int]) -> None:
    stream = digits(experiences=experiences)
    assert sizes(stream) == expected
    assert sorted(c for e in stream.experiences for c in e.classes) == list(range(10))
    assert sum(len(e.train) for e in stream.experiences) == 1201
    assert sum(len(e.test) for e in stream.experiences) == 596


@pytest.mark.parametrize(
    ("experiences", "message"),
    [
        ([4, 3], "adds up to 7 classes, but digits has 10"),
        ([5, 6], "adds up to 11"),
        (11, "there are only 10 classes"),
        ("groups", "has no groups"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(experiences: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        digits(experiences=experiences)


def test_labels_and_names_are_those_of_the_data() -> None:
    stream = digits()
    third = stream[2]
    assert third.name == "4 5"
    assert set(third.train.y.tolist()) == {4, 5}
    assert third.train.x.dtype == torch.uint8
    assert third.train.x.shape[1:] == (1, 8, 8)


def test_identity_does_not_depend_on_the_place() -> None:
    stream = digits()
    moved = stream.reordered([4, 2, 0, 1, 3])
    assert moved[1].identity == stream[2].identity
    assert moved[1].task == 2
    assert len({e.identity for e in stream.experiences}) == 5
    assert digits(scenario="task")[0].identity == stream[0].identity


def test_identity_depends_on_data_classes_and_transformation() -> None:
    x, y = torch.randn(8, 3), torch.tensor([0, 1] * 4)
    changed = x.clone()
    changed[3, 1] += 1

    def identity(x: torch.Tensor, groups: list[list[int]]) -> str:
        s = Samples.of(x, y)
        return class_incremental("s", groups, ["a", "b"], s, s)[0].identity

    base = identity(x, [[0, 1]])
    assert identity(x.clone(), [[0, 1]]) == base
    assert identity(changed, [[0, 1]]) != base
    assert identity(x, [[0], [1]]) != base
    domains = build("stream", {"name": "rotated-digits", "experiences": 3})
    assert len({e.identity for e in domains.experiences}) == 3


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 2, 2, 1, 3), r"4 is missing"),
        ((0, 1, 2, 3), r"4 is missing"),
        ((0, 1, 2, 3, 5), r"4 is missing; 5 is unknown"),
        ((0, 1, 2, 3, 4, 4), "it has 6 items, not 5"),
    ],
)
def test_an_order_must_be_a_permutation(order: tuple[int, ...], message: str) -> None:
    with pytest.raises(CurriculumError, match=message):
        digits().reordered(order)


def test_class_orders_fill_experiences_of_unchanged_sizes() -> None:
    stream = digits(experiences=3).regrouped([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert [e.classes for e in stream.experiences] == [(6, 7, 8, 9), (3, 4, 5), (0, 1, 2)]
    assert set(stream[0].train.y.tolist()) == {6, 7, 8, 9}
    assert (
        digits(experiences=3).regrouped(range(10))[1].identity == digits(experiences=3)[1].identity
    )


def test_classes_shared_between_experiences_have_no_order() -> None:
    with pytest.raises(BadInput, match=r"curriculum\.level=experiences"):
        build("stream", {"name": "permuted-digits"}).regrouped(range(10))


def test_permuted_pixels() -> None:
    stream = build("stream", {"name": "permuted-digits", "experiences": 3})
    first, second, third = (e.train.x.flatten(1) for e in stream.experiences)
    assert stream[0].name == "unpermuted"
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first.sort(1).values, second.sort(1).values)
    again = build("stream", {"name": "permuted-digits", "experiences": 3})
    assert torch.equal(again[1].train.x.flatten(1), second)


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-digits"])
def test_domains_have_inputs_from_0_to_1_on_request(name: str) -> None:
    unit, usual = (
        build("stream", {"name": name, "experiences": 3, "normalise": normalise})
        for normalise in (False, True)
    )
    for given in unit.experiences:
        x = unit.preprocess(given.train.x)
        assert (x.min(), x.max()) == (0, 1)
    x = usual.preprocess(usual[0].train.x)
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-3


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-digits"])
def test_tasks_have_heads_of_their_own_on_request(name: str) -> None:
    settings = {"name": name, "experiences": 3, "scenario": "task"}
    shared, apart = (build("stream", {**settings, "heads": h}) for h in ("shared", "task"))
    assert shared.n_classes == 10
    assert [e.classes for e in shared.experiences] == [tuple(range(10))] * 3
    assert apart.n_classes == 30
    assert [e.classes for e in apart.experiences] == [tuple(range(k, k + 10)) for k in (0, 10, 20)]
    assert apart.class_names[10].endswith("1: 0") or apart.class_names[10] == "rotation 90: 0"
    for e, same in zip(apart.experiences, shared.experiences, strict=True):
        assert torch.equal(e.train.y, same.train.y + 10 * e.task)
        assert torch.equal(e.test.x, same.test.x)
    assert torch.equal(apart.task_classes().sum(0), torch.ones(30, dtype=torch.int64))
    with pytest.raises(BadInput, match="give --scenario task"):
        build("stream", {"name": name, "heads": "task"})


def test_rotation_by_right_angles_is_exact() -> None:
    stream = build("stream", {"name": "rotated-digits", "experiences": 3, "largest_angle": 180.0})
    upright, quarter, half = (e.test.x for e in stream.experiences)
    assert torch.equal(quarter, torch.rot90(upright, 1, (2, 3)))
    assert torch.equal(half, torch.rot90(upright, 2, (2, 3)))


def test_held_out_data_are_stratified_disjoint_and_fixed() -> None:
    stream = digits(validation=0.2)
    for e in stream.experiences:
        for c in e.classes:
            total = int((e.train.y == c).sum() + (e.validation.y == c).sum())
            assert int((e.validation.y == c).sum()) == int(0.2 * total)
        assert not set(e.train.index.tolist()) & set(e.validation.index.tolist())
    assert [e.identity for e in digits(validation=0.2).experiences] == [
        e.identity for e in stream.experiences
    ]
    assert len(digits()[0].validation) == 0


def test_blobs_have_the_answer_they_claim() -> None:
    stream = build("stream", {"name": "blobs", "samples_per_class": 500})
    x = torch.cat([e.train.x for e in stream.experiences]).numpy()
    y = torch.cat([e.train.y for e in stream.experiences]).numpy()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    assert means[:, 0] == pytest.approx([16.0] * 10, abs=0.3)
    assert np.linalg.norm(means[:, 1:], axis=1) == pytest.approx([8.0] * 10, abs=0.3)
    distances = np.linalg.norm(means[:, None] - means, axis=2)[~np.eye(10, dtype=bool)]
    assert distances == pytest.approx([8 * 2**0.5] * 90, abs=0.5)
    spread = np.stack([x[y == c].std(0) for c in range(10)])
    assert spread.mean() == pytest.approx(1, abs=0.02)


def test_an_online_stream_is_seen_once() -> None:
    with pytest.raises(BadInput, match="an online stream is seen once; give epochs=1"):
        clp.run({"name": "blobs", "online": True}, "finetune", epochs=2, out=None)


def test_a_stream_without_test_data_cannot_be_scored() -> None:
    samples = Samples.of(torch.randn(8, 3), torch.tensor([0, 1] * 4))
    empty = samples.select(torch.zeros(0, dtype=torch.int64))
    stream = class_incremental("s", [[0], [1]], ["a", "b"], samples, empty)
    with pytest.raises(BadInput, match="has no test data"):
        clp.run(stream, "finetune", out=None)


def test_as_many_labels_as_inputs() -> None:
    with pytest.raises(BadInput, match="8 inputs with 7 labels"):
        Samples.of(torch.randn(8, 3), torch.zeros(7))


def test_a_stream_needs_training_data() -> None:
    samples = Samples.of(torch.randn(4, 3), torch.zeros(4))
    with pytest.raises(BadInput, match="has no training data"):
        class_incremental("s", [[0], [1]], ["a", "b"], samples, samples)


def test_classes_can_be_dealt_out_in_a_random_order() -> None:
    numeric, first, again, other = (split_digits(class_seed=seed) for seed in (None, 1, 1, 2))
    groups = [[e.classes for e in s.experiences] for s in (numeric, first, again, other)]
    assert groups[0] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert groups[1] == groups[2] != groups[3]
    assert sorted(c for g in groups[1] for c in g) == list(range(10))


def test_a_domain_stream_of_split_classes_knows_them_by_place_only() -> None:
    classes, domain = split_digits(class_seed=3), split_digits(class_seed=3, scenario="domain")
    assert domain.scenario == "domain"
    assert domain.n_classes == 2
    for before, after in zip(classes.experiences, domain.experiences, strict=True):
        assert after.name == before.name
        expected = (before.test.y == before.classes[1]).long()
        assert torch.equal(after.test.y, expected)


def test_a_domain_stream_needs_experiences_of_one_size() -> None:
    with pytest.raises(BadInput, match="same classes in every experience; these have"):
        split_digits(experiences=3, scenario="domain")


def test_a_quick_look_scores_a_part_of_the_test_data_and_says_so() -> None:
    full, some = split_digits(), split_digits(test_samples=20)
    assert [len(e.test) for e in some.experiences] == [20] * 5
    assert some.name == f"{full.name} (20 test samples each)"
    for whole, part in zip(full.experiences, some.experiences, strict=True):
        assert set(part.test.index.tolist()) < set(whole.test.index.tolist())
        assert set(part.test.y.tolist()) == set(whole.classes)
        assert part.train.identity == whole.train.identity
    assert [len(e.test) for e in split_digits(test_samples=10**6).experiences] == [
        len(e.test) for e in full.experiences
    ]


def test_a_part_of_each_experience_can_be_kept() -> None:
    full, some = split_digits(), split_digits(samples=20)
    assert [len(e.train) for e in some.experiences] == [20] * 5
    assert [len(e.test) for e in some.experiences] == [len(e.test) for e in full.experiences]
    assert all(
        set(s.train.index.tolist()) <= set(f.train.index.tolist())
        for s, f in zip(some.experiences, full.experiences, strict=True)
    )


def test_inputs_that_are_not_normalised_lie_between_zero_and_one() -> None:
    stream = split_digits(normalise=False)
    x = stream.preprocess(stream[0].train.x)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


IMPORTED = """
import sys
from cl_platform.config.signatures import build
for stream in sys.argv[1:]:
    for module in [m for m in sys.modules if m.startswith("streams.")]:
        del sys.modules[module]
    build("stream", {"name": stream})
    print(*(m.removeprefix("streams.") for m in sys.modules if m.startswith("streams.")))
"""


@pytest.mark.system
def test_a_stream_imports_only_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    for name in ("train_5500.label", "TREC_10.label"):
        (tmp_path / "trec" / name).write_text("A:b how\nC:d who\n")
    streams = ("split-digits", "split-digits", "split-trec", "split-trec")
    command = [sys.executable, "-c", IMPORTED, *streams]
    environment = {**os.environ, "CLP_DATA": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    images, again, text, text_again = (set(line.split()) for line in done.stdout.splitlines())
    always = {
        "data",
        "data.datasets",
        "data.natural",
        "sharing",
        "class_groups",
        "row_groups",
        "shots",
    }
    of_images = always | {"images", "transforms"}
    assert images == of_images | {"data.sources", "data.formats"}  # the files are read
    read = {"data.text_sources", "data.text_formats", "data.formats", "data.fetch"}
    assert text == always | {"text"} | read
    assert (again, text_again) == (of_images, always | {"text"})  # the arrays are there


def test_every_data_set_has_a_source_and_a_published_size() -> None:
    assert IMAGES.keys() == SOURCES.keys()
    assert TEXTS.keys() == TEXT_SOURCES.keys()
