"""Orders made from the data: designed, in chains, by superclass; several orders at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Curriculum, Samples, Stream, class_incremental
from cl_platform.config.signatures import build
from cl_platform.core.order.curriculum import arrange, ask
from cl_platform.errors import BadInput, CurriculumError
from streams.curricula import designer
from streams.data.datasets import load_dataset
from tests.helpers.hand_made import (
    BLOBS,
    FEATURED,
    PAIRS,
    assert_one_line,
    curriculum,
    order_of,
    stream_of,
)

# --- the designer


def test_the_designer_gives_the_orders_of_its_ranks() -> None:
    chosen = curriculum("designer")
    matrix = chosen.distances(BLOBS)
    best = designer.ranked(matrix, 120)
    assert order_of(BLOBS, "designer") == best[0][1]
    for rank in (1, 2, 60, 120):
        assert order_of(BLOBS, "designer", rank=rank) == best[rank - 1][1]
    worst = designer.ranked(matrix, 3, worst=True)
    assert [order_of(BLOBS, "designer", rank=-r) for r in (1, 2, 3)] == [o for _, o in worst]


def test_the_designers_scores_are_those_it_ranks_by() -> None:
    chosen = curriculum("designer", distance="euclidean")
    orders = [order_of(BLOBS, "designer", rank=r, distance="euclidean") for r in (1, 50, 120, -1)]
    scores = chosen.scores(BLOBS, orders)
    assert all(type(score) is float for score in scores)
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] == pytest.approx(scores[3])
    assert list(scores) == pytest.approx(designer.scores(chosen.distances(BLOBS), orders))
    given = chosen.scores(BLOBS.without_test_data(), orders)
    assert list(given) == list(scores)


@pytest.mark.parametrize("rank", [0, 121, -121])
def test_a_rank_that_does_not_exist_is_refused(rank: int) -> None:
    with pytest.raises(
        CurriculumError, match=rf"curriculum\.rank={rank}: give .* 1 to 120, .* -1 to -120"
    ) as caught:
        order_of(BLOBS, "designer", rank=rank)
    assert_one_line(caught.value)


@pytest.mark.parametrize("parameters", [{"top": 2}, {"bottom": 1}, {"top": 1, "bottom": 1}])
def test_several_designed_orders_are_no_single_run(parameters: dict) -> None:
    with pytest.raises(CurriculumError, match="axis of a sweep") as caught:
        clp.run("blobs", "finetune", curriculum={"name": "designer", **parameters}, out=None)
    assert_one_line(caught.value)


def test_top_and_bottom_stand_for_so_many_ranks() -> None:
    chosen = curriculum("designer", top=2, bottom=3, distance="euclidean", samples=50)
    sections = chosen.variants(BLOBS)
    assert [s["rank"] for s in sections] == [1, 2, -1, -2, -3]
    single = [build("curriculum", dict(s)) for s in sections]
    assert {(c.distance, c.samples, c.level) for c in single} == {("euclidean", 50, "experiences")}
    matrix = chosen.distances(BLOBS)
    expected = designer.ranked(matrix, 2) + designer.ranked(matrix, 3, worst=True)
    assert [list(ask(BLOBS, c, 0)) for c in single] == [order for _, order in expected]
    assert list(curriculum("designer").variants(BLOBS)) == []


@pytest.mark.parametrize("parameters", [{"top": 0}, {"bottom": 0}, {"top": -1}, {"samples": 0}])
def test_numbers_of_orders_and_samples_are_positive(parameters: dict) -> None:
    with pytest.raises(BadInput, match="greater than 0") as caught:
        curriculum("designer", **parameters)
    assert_one_line(caught.value)


def test_the_designer_orders_a_hundred_classes() -> None:
    stream = build(
        "stream",
        {"name": "blobs", "experiences": 50, "dimensions": 30, "samples_per_class": 20},
    )
    order = order_of(stream, "designer", level="classes")
    assert sorted(order) == list(range(100))
    chosen = curriculum("designer", level="classes")
    best, numeric, lowest = chosen.scores(
        stream, [order, list(range(100)), order_of(stream, "designer", rank=-1, level="classes")]
    )
    assert best > numeric > lowest


# --- chains

# One class each at 3, 0, 15, 1 and 7.
LINE = stream_of([[3.0], [0.0], [15.0], [1.0], [7.0]], [[c] for c in range(5)], spread=0.1)


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("similar_chain", None, [0, 3, 1, 4, 2]),  # 3 is nearest to all: 3 1 0 7 15
        ("similar_chain", 1, [1, 3, 0, 4, 2]),  # 0 1 3 7 15
        ("similar_chain", 2, [2, 4, 0, 3, 1]),  # 15 7 3 1 0
        ("distant_chain", None, [2, 1, 4, 3, 0]),  # 15 is farthest from all: 15 0 7 1 3
        ("distant_chain", 1, [1, 2, 3, 4, 0]),  # 0 15 1 7 3
        ("distant_chain", 4, [4, 2, 1, 0, 3]),  # 7 15 0 3 1
    ],
)
@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_chains_along_a_line(name: str, start: int | None, expected: list, level: str) -> None:
    given = {"start": start, "distance": "euclidean", "level": level, "samples": 200}
    assert order_of(LINE, name, **given) == expected


@pytest.mark.parametrize("name", ["similar_chain", "distant_chain"])
def test_equal_distances_make_a_chain_in_the_given_order(name: str) -> None:
    stream = stream_of([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]], [[0], [1], [2]], spread=0.0)
    assert order_of(stream, name) == [0, 1, 2]
    assert order_of(stream, name, start=1) == [1, 0, 2]


@pytest.mark.parametrize("name", ["similar_chain", "distant_chain"])
def test_a_chain_begins_with_something_there_is(name: str) -> None:
    with pytest.raises(CurriculumError, match=r"curriculum\.start=5: give 0 to 4") as caught:
        order_of(LINE, name, start=5)
    assert_one_line(caught.value)
    with pytest.raises(BadInput, match=r"curriculum\.start=-1"):
        curriculum(name, start=-1)


# --- superclasses


def superclass_of_each(stream: Stream, order: Sequence[int]) -> list[str]:
    return [stream.superclasses[c] for c in order]


def test_superclasses_of_cifar100_take_turns(real_data: Path) -> None:
    stream = build("stream", {"name": "split-cifar100", "experiences": 20})
    order = order_of(stream, "interleaved", level="classes")
    for turn in range(5):
        names = superclass_of_each(stream, order[20 * turn : 20 * turn + 20])
        assert len(set(names)) == 20
        assert names == superclass_of_each(stream, order[:20])
    for name in set(stream.superclasses):  # each gives its classes in their own order
        mine = [c for c in order if stream.superclasses[c] == name]
        assert mine == sorted(mine)
    mixed = arrange(stream, "classes", order)
    assert [len(set(superclass_of_each(stream, e.classes))) for e in mixed.experiences] == [5] * 20


def test_superclasses_of_cifar100_one_after_the_other(real_data: Path) -> None:
    stream = build("stream", {"name": "split-cifar100", "experiences": 20})
    order = order_of(stream, "blocked", level="classes")
    blocks = arrange(stream, "classes", order)
    names = [set(superclass_of_each(stream, e.classes)) for e in blocks.experiences]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == 20
    groups = {frozenset(classes) for classes in load_dataset("cifar100").groups.values()}
    assert {frozenset(e.classes) for e in blocks.experiences} == groups


def test_domains_of_clinc150_take_turns(real_data: Path) -> None:
    stream = build("stream", {"name": "split-clinc150", "experiences": 30})
    assert order_of(stream, "blocked") == list(range(30))
    expected = [3 * domain + turn for turn in range(3) for domain in range(10)]
    assert order_of(stream, "interleaved") == expected
    shuffled = stream.reordered(np.random.default_rng(0).permutation(30).tolist())
    domain_of = [shuffled.superclasses[e.classes[0]] for e in shuffled.experiences]
    blocked = [domain_of[i] for i in order_of(shuffled, "blocked")]
    assert blocked == [name for name in dict.fromkeys(domain_of) for _ in range(3)]


def test_superclasses_of_different_sizes() -> None:
    stream = stream_of(
        [[float(c)] for c in range(6)], [[c] for c in range(6)], superclasses="aababc"
    )
    assert order_of(stream, "blocked") == [0, 1, 3, 2, 4, 5]
    assert order_of(stream, "interleaved") == [0, 2, 5, 1, 4, 3]


def test_an_experience_counts_for_the_superclass_of_most_of_its_classes() -> None:
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    stream = stream_of([[float(c)] for c in range(9)], groups, superclasses="aabbbcaac")
    assert order_of(stream, "blocked") == [0, 2, 1]
    assert order_of(stream, "interleaved") == [0, 1, 2]


@pytest.mark.parametrize("name", ["interleaved", "blocked"])
@pytest.mark.parametrize(
    "stream", ["blobs", "permuted-digits", {"name": "split-digits", "scenario": "domain"}]
)
def test_streams_without_superclasses_are_refused(name: str, stream: object) -> None:
    with pytest.raises(CurriculumError, match="has no superclasses: give split-cifar100") as caught:
        clp.run(stream, "finetune", curriculum=name, out=None)  # type: ignore[arg-type]
    assert_one_line(caught.value)


def test_superclasses_go_by_class() -> None:
    with pytest.raises(BadInput, match="2 superclasses for 3 classes"):
        stream_of([[0.0], [1.0], [2.0]], [[0], [1], [2]], superclasses="ab")


# --- what they see


class Forbidden:
    """A transformation of data that nobody may look at."""

    identity = "forbidden"

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        raise AssertionError("these were looked at")


@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_an_order_follows_from_the_training_data_alone(level: str) -> None:
    """Even where they are given streams with test data, which the kernel never does."""
    for seed, name in enumerate(FEATURED):  # other data for each, so that nothing is known yet
        given = stream_of(PAIRS, [[0, 1], [2, 3], [4, 5]], n=40, seed=seed)
        hidden = Stream(
            given.name,
            given.scenario,
            tuple(
                replace(
                    e,
                    test=replace(e.test, transform=Forbidden()),
                    validation=replace(e.test, transform=Forbidden()),
                )
                for e in given.experiences
            ),
            given.class_names,
        )
        with pytest.raises(AssertionError):
            _ = hidden[0].test.x
        order = curriculum(name, level=level)(hidden, np.random.default_rng(0))
        assert list(order) == order_of(given, name, level=level)


@pytest.mark.parametrize("name", ["as_given", "reverse", *FEATURED])
@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_only_random_orders_follow_the_seed_of_the_run(name: str, level: str) -> None:
    stream = build("stream", {"name": "split-digits"})
    assert len({tuple(order_of(stream, name, seed=s, level=level)) for s in range(4)}) == 1
    assert len({tuple(order_of(stream, "random", seed=s, level=level)) for s in range(4)}) > 1


@pytest.mark.parametrize("name", FEATURED)
def test_domains_can_be_ordered(name: str) -> None:
    stream = {"name": "permuted-digits", "experiences": 4}
    result = clp.run(stream, "finetune", curriculum=name, out=None)
    assert sorted(result.order) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", FEATURED)
def test_classes_that_are_shared_cannot(name: str) -> None:
    stream = {"name": "permuted-digits", "experiences": 3}
    with pytest.raises(BadInput, match=r"curriculum\.level=experiences") as caught:
        clp.run(stream, "finetune", curriculum={"name": name, "level": "classes"}, out=None)
    assert_one_line(caught.value)


def test_an_order_of_classes_fills_the_experiences() -> None:
    section = {"name": "designer", "level": "classes"}
    result = clp.run("split-digits", "finetune", curriculum=section, out=None)
    assert sorted(result.order) == list(range(10))
    pairs = [sorted(result.order[i : i + 2]) for i in range(0, 10, 2)]
    assert [e["classes"] for e in result.experiences] == pairs


def test_a_class_without_training_data_has_no_place() -> None:
    samples = Samples.of(torch.randn(9, 2), torch.tensor([0, 1, 1] * 3))
    test = Samples.of(torch.randn(9, 2), torch.tensor([0, 1, 2] * 3))
    stream = class_incremental("s", [[0], [1, 2]], ["a", "b", "nothing"], samples, test)
    with pytest.raises(CurriculumError, match="class 'nothing' has no training data") as caught:
        order_of(stream, "designer", level="classes")
    assert_one_line(caught.value)
    assert sorted(order_of(stream, "designer")) == [0, 1]


# --- several orders


def test_random_with_n_gives_so_many_orders_the_same_in_every_run() -> None:
    sections = curriculum("random", n=10).variants(BLOBS)
    orders = {tuple(s["order"]) for s in sections}
    assert len(sections) == len(orders) == 10
    assert {s["name"] for s in sections} == {"explicit"}
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert curriculum("random", n=10).variants(BLOBS) == sections
    assert curriculum("random", n=10, seed=1).variants(BLOBS) != sections
    fewer = curriculum("random", n=4).variants(BLOBS)
    assert fewer == sections[:4]  # a study that is made larger keeps what it has


def test_random_with_n_of_classes() -> None:
    sections = curriculum("random", n=3, level="classes").variants(BLOBS)
    assert {s["level"] for s in sections} == {"classes"}
    assert all(sorted(s["order"]) == list(range(10)) for s in sections)


def test_random_with_n_can_give_all_orders_and_no_more() -> None:
    stream = build("stream", {"name": "blobs", "experiences": 3})
    assert len({tuple(s["order"]) for s in curriculum("random", n=6).variants(stream)}) == 6
    with pytest.raises(CurriculumError, match="3 experiences have 6 orders") as caught:
        curriculum("random", n=7).variants(stream)
    assert_one_line(caught.value)


def test_random_with_n_is_no_single_run() -> None:
    with pytest.raises(CurriculumError, match="axis of a sweep") as caught:
        clp.run("blobs", "finetune", curriculum={"name": "random", "n": 3}, out=None)
    assert_one_line(caught.value)
    assert list(curriculum("random").variants(BLOBS)) == []


def test_all_without_mirrored_orders_gives_one_of_each_pair() -> None:
    every = [tuple(s["order"]) for s in curriculum("all").variants(BLOBS)]
    half = [tuple(s["order"]) for s in curriculum("all", mirrored=False).variants(BLOBS)]
    assert len(set(every)) == len(every) == 120
    assert len(set(half)) == len(half) == 60
    assert all((order in half) != (order[::-1] in half) for order in every)
    assert all(order[0] < order[-1] for order in half)


def test_the_limit_of_all_counts_what_there_will_be() -> None:
    assert len(curriculum("all", mirrored=False, limit=60).variants(BLOBS)) == 60
    with pytest.raises(CurriculumError, match="60 orders of 5 experiences") as caught:
        curriculum("all", mirrored=False, limit=59).variants(BLOBS)
    assert_one_line(caught.value)
    single = build("stream", {"name": "blobs", "experiences": 1})
    assert [s["order"] for s in curriculum("all", mirrored=False).variants(single)] == [[0]]


class Mine(Curriculum):
    """A curriculum with an order and no view on others."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(len(stream))


def test_a_curriculum_without_scores_says_so() -> None:
    for chosen, name in [(curriculum("random"), "random"), (Mine(), "Mine")]:
        with pytest.raises(
            CurriculumError, match=f"{name}' gives orders no scores; designer"
        ) as caught:
            chosen.scores(BLOBS, [[0, 1, 2, 3, 4]])
        assert_one_line(caught.value)
    assert list(Mine().variants(BLOBS)) == []
