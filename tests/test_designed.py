"""Curricula made from the data: designed, by difficulty, by distance, by superclass; encoders."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Curriculum, Samples, Stream, class_incremental
from cl_platform.curriculum import arrange, ask
from cl_platform.errors import BadInput, ClpError, CurriculumError, DataError
from cl_platform.parameters import build
from streams import designer
from streams.datasets import load_dataset
from streams.distances import Items, difficulties, distances, items_of

FEATURED = ["designer", "easy_first", "hard_first", "similar_chain", "distant_chain"]


def curriculum(name: str, **parameters: object) -> Any:
    return build("curriculum", {"name": name, **parameters})


def order_of(stream: Stream, name: str, seed: int = 0, **parameters: object) -> list[int]:
    return list(ask(stream, curriculum(name, **parameters), seed))


def stream_of(
    means: Sequence[Sequence[float]],
    groups: Sequence[Sequence[int]],
    n: int = 200,
    spread: float | Sequence[float] = 1.0,
    rows: torch.Tensor | None = None,
    seed: int = 0,
    **fields: object,
) -> Stream:
    """Normal classes around given means, stored class by class unless `rows` says otherwise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(len(means)).repeat_interleave(n)
    noise = torch.randn(len(y), len(means[0]), generator=generator)
    noise -= noise.reshape(len(means), n, -1).mean(1)[y]  # the means are exact
    x = torch.tensor(means, dtype=torch.float32)[y] + torch.tensor(spread) * noise
    rows = torch.arange(len(y)) if rows is None else rows
    samples = Samples.of(x[rows], y[rows])
    names = [f"class {c}" for c in range(len(means))]
    return class_incremental("hand-made", groups, names, samples, samples, **fields)


def items(*features: np.ndarray) -> Items:
    names = tuple(f"item {i}" for i in range(len(features)))
    labels = tuple(np.full(len(f), i) for i, f in enumerate(features))
    return Items(names, tuple(np.asarray(f, dtype=np.float64) for f in features), labels)


def assert_one_line(error: BaseException) -> None:
    assert len(str(error).splitlines()) == 1


# --- the designer

BLOBS = build("stream", {"name": "blobs"})


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


# --- difficulties

# Pairs of classes on lines far from each other: apart, the same, and half of both.
PAIRS = [[0, 0], [12, 0], [0, 100], [0.3, 100], [0, 200], [2, 200]]
DIFFICULT = stream_of(PAIRS, [[0, 1], [2, 3], [4, 5]])


def test_overlapping_classes_are_difficult() -> None:
    found = curriculum("easy_first", samples=1000).difficulties(DIFFICULT)
    # Two normals at 12, 0.3 and 2 standard deviations from each other: Phi of minus half of it.
    assert found == pytest.approx([0, 0.44, 0.16], abs=0.07)
    assert found[0] == 0


def test_a_probe_finds_overlapping_classes_difficult() -> None:
    # By least squares a line of classes hides those in its middle: these stand at corners.
    corners = [[0, 0, 0], [12, 0, 0], [0, 12, 0], [0, 12, 0.3]]
    found = curriculum("easy_first", difficulty="probe", samples=1000).difficulties(
        stream_of(corners, [[0, 1], [2, 3]])
    )
    assert found[0] < 0.02
    assert found[1] == pytest.approx(0.44, abs=0.07)


def test_a_probe_sees_what_lies_along_a_small_axis() -> None:
    """Nearest means are lost where another axis is a hundred times as wide."""
    stream = stream_of([[0, 0], [0, 3]], [[0], [1]], spread=(300.0, 0.5))
    nearest, probe = (
        curriculum("easy_first", difficulty=d, samples=1000).difficulties(stream).mean()
        for d in ("nearest_mean", "probe")
    )
    assert nearest > 0.2
    assert probe < 0.05


def test_easy_first_is_the_reverse_of_hard_first() -> None:
    assert order_of(DIFFICULT, "easy_first") == [0, 2, 1]
    assert order_of(DIFFICULT, "hard_first") == [1, 2, 0]


def test_equal_difficulties_stand_in_the_given_order() -> None:
    stream = stream_of([[20.0 * i] for i in range(8)], [[0, 1], [2, 3], [4, 5], [6, 7]])
    assert order_of(stream, "easy_first") == order_of(stream, "hard_first") == [0, 1, 2, 3]


def test_difficulties_of_classes() -> None:
    found = curriculum("easy_first", level="classes", samples=200).difficulties(DIFFICULT)
    assert found.shape == (6,)
    assert found[:2].tolist() == [0, 0]
    assert min(found[2:4]) > max(found[4:6]) > 0.05
    order = order_of(DIFFICULT, "easy_first", level="classes", samples=200)
    assert order[:2] == [0, 1]
    assert set(order[-2:]) == {2, 3}


@pytest.mark.parametrize("difficulty", ["nearest_mean", "probe"])
def test_labels_without_information_are_wrong_as_often_as_chance(difficulty: str) -> None:
    """What is scored was not fitted: else random labels would be learned by heart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 60, generator=generator)
    y = torch.randint(4, (400,), generator=generator).sort().values
    samples = Samples.of(x, y)
    stream = class_incremental("noise", [[0, 1], [2, 3]], "abcd", samples, samples)
    found = curriculum("easy_first", difficulty=difficulty, samples=1000).difficulties(stream)
    assert found == pytest.approx([0.75, 0.75], abs=0.1)


@pytest.mark.parametrize("difficulty", ["nearest_mean", "probe"])
def test_the_order_of_the_rows_does_not_decide_on_difficulties(difficulty: str) -> None:
    """A data set may list its classes in turn, as the digits of scikit-learn nearly do."""
    in_turn = torch.arange(4).repeat(100) * 100 + torch.arange(100).repeat_interleave(4)
    means = [[0.0], [12.0], [24.0], [36.0]]
    by_class = stream_of(means, [[0, 1], [2, 3]], n=100)
    mixed = stream_of(means, [[0, 1], [2, 3]], n=100, rows=in_turn)
    chosen = curriculum("easy_first", difficulty=difficulty, samples=1000)
    expected = chosen.difficulties(by_class)
    assert chosen.difficulties(mixed) == pytest.approx(expected, abs=0.05)


def test_difficulties_need_two_samples_of_each_class() -> None:
    for parameters in ({"samples": 1}, {"samples": 1, "level": "classes"}):
        with pytest.raises(CurriculumError, match=r"raise curriculum\.samples") as caught:
            order_of(BLOBS, "easy_first", **parameters)
        assert_one_line(caught.value)


def test_a_single_class_has_no_difficulty() -> None:
    stream = stream_of([[0.0]], [[0]])
    with pytest.raises(CurriculumError, match="need two classes") as caught:
        order_of(stream, "easy_first")
    assert_one_line(caught.value)


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
    with pytest.raises(CurriculumError, match="has no superclasses to go by") as caught:
        clp.run(stream, "finetune", curriculum=name, out=None)  # type: ignore[arg-type]
    assert_one_line(caught.value)


def test_superclasses_go_by_class() -> None:
    with pytest.raises(BadInput, match="2 superclasses for 3 classes"):
        stream_of([[0.0], [1.0], [2.0]], [[0], [1], [2]], superclasses="ab")


# --- distances


def test_cosine_and_euclidean_by_hand() -> None:
    given = items([[1, 0], [3, 0]], [[0, 5]], [[3, 1], [5, 3]], [[-1, 0]])  # means 2,0 0,5 4,2 -1,0
    cosine = distances(given, "cosine")
    to_third = 1 - 4 / math.sqrt(20)
    assert cosine[0] == pytest.approx([0, 1, to_third, 2])
    assert cosine[1, 2] == pytest.approx(1 - 2 / math.sqrt(20))
    euclidean = distances(given, "euclidean")
    assert euclidean[0] == pytest.approx([0, math.sqrt(29), math.sqrt(8), 3])
    assert euclidean[1, 2] == pytest.approx(5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "ot"])
def test_distances_are_symmetric_with_a_zero_diagonal(distance: str) -> None:
    rng = np.random.default_rng(0)
    given = items(*(rng.normal(i, 1, (20 + i, 3)) for i in range(5)))
    found = distances(given, distance)  # type: ignore[arg-type]
    assert found.shape == (5, 5)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()
    assert (found >= 0).all()


def test_features_that_are_zero_have_a_cosine_distance() -> None:
    found = distances(items([[0, 0]], [[1, 2]], [[0, 0]]), "cosine")
    assert np.isfinite(found).all()


def test_optimal_transport_is_0_between_samples_of_one_distribution() -> None:
    rng = np.random.default_rng(0)
    same = distances(items(*(rng.normal(0, 1, (300, 2)) for _ in range(6))), "ot")
    assert same.max() < 0.1  # without the correction about 2 * 0.1 of finite samples remain
    wide = distances(items(*(rng.normal(0, 1, (60, 30)) for _ in range(4))), "ot")
    assert wide.max() < 3  # where squared distances are about 60 and uncorrected ones above 30


@pytest.mark.parametrize("delta", [1.0, 3.0, 10.0])
def test_optimal_transport_of_a_shift_is_its_square(delta: float) -> None:
    rng = np.random.default_rng(1)
    shifted = rng.normal(0, 1, (300, 3)) + np.array([delta, 0, 0])
    found = distances(items(rng.normal(0, 1, (300, 3)), shifted), "ot")
    assert found[0, 1] == pytest.approx(delta**2, rel=0.1, abs=0.25)


def test_optimal_transport_sees_what_means_do_not() -> None:
    """Normals of standard deviation 1 and 3: W2 squared is (3 - 1)^2 per dimension."""
    rng = np.random.default_rng(2)
    given = items(rng.normal(0, 1, (400, 2)), rng.normal(0, 3, (400, 2)))
    assert distances(given, "euclidean")[0, 1] < 0.5
    assert distances(given, "ot")[0, 1] == pytest.approx(8, rel=0.25)


def test_optimal_transport_does_not_depend_on_the_order_of_the_rows() -> None:
    """Two clusters in each item, and their rows in turn: either half must hold both."""
    rng = np.random.default_rng(3)
    clusters = np.repeat([[0.0, 0.0], [20.0, 0.0]], 100, axis=0)
    a, b = (clusters + rng.normal(0, 1, (200, 2)) for _ in range(2))
    b += np.array([0.0, 4.0])
    in_turn = np.arange(200).reshape(2, 100).T.ravel()
    expected = distances(items(a, b), "ot")[0, 1]
    assert expected == pytest.approx(16, rel=0.2)
    assert distances(items(a[in_turn], b[in_turn]), "ot")[0, 1] == pytest.approx(16, rel=0.2)


def test_optimal_transport_needs_two_samples() -> None:
    with pytest.raises(CurriculumError, match="'blob 0 blob 1' has a single sample") as caught:
        order_of(BLOBS, "designer", distance="ot", samples=1)
    assert_one_line(caught.value)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "ot"])
def test_every_distance_designs_an_order(distance: str) -> None:
    assert sorted(order_of(BLOBS, "designer", distance=distance)) == [0, 1, 2, 3, 4]


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


def test_items_have_the_names_of_their_own_stream() -> None:
    """Streams with the same training data, such as groups with and without names of their own."""
    x, y = torch.randn(20, 3), torch.arange(2).repeat(10)
    samples = Samples.of(x, y)
    found = []
    for names in (["cat", "dog"], ["chat", "chien"]):
        stream = class_incremental("s", [[0], [1]], names, samples, samples)
        found.append(items_of(stream, "experiences", "pixels", 10).names)
        found.append(items_of(stream, "classes", "pixels", 10).names)
    assert found == [("cat", "dog")] * 2 + [("chat", "chien")] * 2


def test_samples_are_spread_over_the_training_data() -> None:
    stream = stream_of([[0.0], [1.0], [2.0]], [[0, 1, 2]], n=100)
    few = items_of(stream, "experiences", "pixels", 30)
    assert np.bincount(few.labels[0]).tolist() == [10, 10, 10]
    every = items_of(stream, "experiences", "pixels", 10**6)
    assert np.array_equal(every.features[0], stream[0].train.x.double().numpy())
    assert np.array_equal(every.labels[0], stream[0].train.y.numpy())


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


# --- encoders

ENCODERS = """
import torch

def first(column: int = 0):
    return lambda raw: raw.flatten(1)[:, column : column + 1]

def not_a_number():
    return lambda raw: torch.full((len(raw), 3), float("nan"))

def infinite():
    return lambda raw: torch.full((len(raw), 3), float("inf"))

def one_number_each():
    return lambda raw: raw.flatten(1).sum(1)

def too_few():
    return lambda raw: raw[:-1].flatten(1)

def numpy_array():
    return lambda raw: raw.numpy()

def nothing():
    return lambda raw: None

def no_function():
    return None

def fails():
    def encode(raw):
        raise RuntimeError("out of\\nluck")
    return encode

def widths_that_vary():
    widths = iter(range(1, 100))
    return lambda raw: raw.flatten(1)[:, : next(widths)]

def asks(parameter):
    return lambda raw: raw.flatten(1)
"""


@pytest.fixture
def my_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of a user with encoders, good and bad ones."""
    module = f"encoders_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(ENCODERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


def test_a_users_own_encoder_is_used(my_encoders: str) -> None:
    """Classes that stand in a different order along each axis."""
    means = [[0.0, 9.0], [9.0, 0.0], [3.0, 3.0], [6.0, 6.0]]
    stream = stream_of(means, [[0], [1], [2], [3]], spread=0.1)
    given = {"distance": "euclidean", "start": 0}
    name = f"{my_encoders}:first"
    assert order_of(stream, "similar_chain", encoder=name, **given) == [0, 2, 3, 1]
    second = {"name": name, "column": 1}
    assert order_of(stream, "similar_chain", encoder=second, **given) == [0, 3, 2, 1]
    result = clp.run(
        stream,
        "finetune",
        curriculum={"name": "similar_chain", "encoder": second, **given},
        out=None,
    )
    assert result.order == [0, 3, 2, 1]
    assert result.config["curriculum"]["encoder"] == second


@pytest.mark.parametrize(
    "encoder",
    [
        "not_a_number",
        "infinite",
        "one_number_each",
        "too_few",
        "numpy_array",
        "nothing",
        "no_function",
        "fails",
        "widths_that_vary",
        "asks",
        "absent",
    ],
)
def test_what_an_encoder_does_wrong_is_one_line_about_the_encoder(
    my_encoders: str, encoder: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, which users do not turn into errors
        for name in ("designer", "easy_first", "similar_chain"):
            with pytest.raises(ClpError, match="encoder") as caught:
                order_of(BLOBS, name, encoder=f"{my_encoders}:{encoder}")
            assert_one_line(caught.value)


def test_an_encoder_that_was_written_anew_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the same name stands for another function a minute later."""
    means = [[0.0, 9.0], [9.0, 8.0], [3.0, 0.0]]  # 0 2 1 along the first axis, 0 1 2 the second
    stream = stream_of(means, [[0], [1], [2]], spread=0.1)
    given = {"distance": "euclidean", "start": 0, "encoder": f"{__name__}:of_the_notebook"}
    orders = []
    for encode in (lambda raw: raw[:, :1], lambda raw: raw[:, 1:]):
        monkeypatch.setitem(globals(), "of_the_notebook", lambda encode=encode: encode)
        orders.append(order_of(stream, "similar_chain", **given))
    assert orders == [[0, 2, 1], [0, 1, 2]]


def test_pixels_lie_between_zero_and_one() -> None:
    encode = build("encoder", {"name": "pixels"})
    images = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    assert encode(images).tolist() == [pytest.approx([0, 1, 0.2, 0.4])]
    assert encode(torch.tensor([[-3.0, 300.0]])).tolist() == [[-3.0, 300.0]]


def test_an_encoder_of_images_refuses_what_is_none(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"inputs of shape \(17,\).*encoder=pixels") as caught:
        order_of(BLOBS, "designer", encoder="cifar-resnet")
    assert_one_line(caught.value)


@torch.inference_mode()
def test_the_network_for_cifar_is_the_published_one(real_data: Path) -> None:
    """With its own last layer it is right on 929 of these 1000 images, as told where they lie."""
    test = load_dataset("cifar10").test
    encode = build("encoder", {"name": "cifar-resnet"})
    features = torch.cat([encode(test.x[i : i + 250]) for i in range(0, 1000, 250)])
    assert features.shape == (1000, 64)
    (path,) = (real_data / "pretrained").glob("resnet20-*.th")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    logits = features @ state["module.linear.weight"].T + state["module.linear.bias"]
    assert int((logits.argmax(1) == test.y).sum()) == pytest.approx(929, abs=1)

    def nearest_mean_accuracy(x: torch.Tensor) -> float:
        y = test.y
        fit = torch.arange(len(y)) % 2 == 0
        means = torch.stack([x[fit & (y == c)].mean(0) for c in range(10)])
        return float((torch.cdist(x[~fit], means).argmin(1) == y[~fit]).float().mean())

    pixels = build("encoder", {"name": "pixels"})(test.x)
    assert nearest_mean_accuracy(pixels) < 0.4
    assert nearest_mean_accuracy(features) > 0.85


@pytest.mark.parametrize("depth", [20, 32])
def test_the_network_for_cifar_takes_grey_and_other_images(real_data: Path, depth: int) -> None:
    encode = build("encoder", {"name": "cifar-resnet", "depth": depth})
    for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64)):
        raw = torch.randint(256, (2, *shape), dtype=torch.uint8)
        assert encode(raw).shape == (2, 64)
    assert torch.equal(encode(raw), encode(raw))  # no dropout, no running statistics


def test_easier_features_make_classes_easier(real_data: Path) -> None:
    stream = build("stream", {"name": "split-cifar10"})
    pixels = difficulties(items_of(stream, "experiences", "pixels", 40), "nearest_mean")
    features = difficulties(items_of(stream, "experiences", "cifar-resnet", 40), "nearest_mean")
    assert features.mean() < pixels.mean() - 0.2


def test_weights_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no file resnet20-\*\.th in .*/pretrained") as caught:
        build("encoder", {"name": "cifar-resnet"})
    assert_one_line(caught.value)
    with pytest.raises(DataError, match=r"no file resnet32-\*\.th") as caught:
        order_of(
            build("stream", {"name": "split-digits", "samples": 7}),
            "designer",
            encoder={"name": "cifar-resnet", "depth": 32},
        )
    assert_one_line(caught.value)


def test_damaged_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "resnet20-0.th").write_bytes(b"no weights")
    with pytest.raises(ClpError, match="cifar-resnet") as caught:
        build("encoder", {"name": "cifar-resnet"})
    assert_one_line(caught.value)


def test_a_network_of_torchvision_with_weights_of_a_file(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    file = tmp_path / "mine.pt"
    torch.save(network.state_dict(), file)
    encode = build("encoder", {"name": "torchvision", "weights": str(file)})
    raw = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    found = encode(raw)
    assert found.shape == (2, 512)
    network.fc = torch.nn.Identity()
    transform = models.ResNet18_Weights.DEFAULT.transforms(antialias=True)
    with torch.inference_mode():
        assert torch.allclose(found, network.eval()(transform(raw)), atol=1e-5)
    assert encode(torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)).shape == (2, 512)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "resnet999"}, "model=resnet999, weights=DEFAULT cannot be had"),
        ({"weights": "NO_SUCH_WEIGHTS"}, "weights=NO_SUCH_WEIGHTS cannot be had"),
        ({"weights": "absent.pt"}, r"weights=absent\.pt cannot be had"),
    ],
)
def test_networks_that_torchvision_does_not_have_are_told(parameters: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        build("encoder", {"name": "torchvision", **parameters})
    assert_one_line(caught.value)


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    from torchvision import models

    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), tmp_path / "other.pt")
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    for name in ("other.pt", "damaged.pt"):
        with pytest.raises(DataError, match=f"{name} cannot be had") as caught:
            build("encoder", {"name": "torchvision", "weights": str(tmp_path / name)})
        assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("pixel", "unknown encoder 'pixel'. Did you mean 'pixels'"),
        ({"name": "cifar-resnet", "depth": 44}, r"encoder\.depth=44"),
        ({"depth": 20}, "names nothing"),
    ],
)
def test_encoders_that_do_not_exist_are_told(encoder: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        clp.run("blobs", "finetune", curriculum={"name": "designer", "encoder": encoder}, out=None)
    assert_one_line(caught.value)
