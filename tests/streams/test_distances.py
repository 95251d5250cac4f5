"""What curricula compare: samples, how difficult they are, and how far from each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cl_platform import Samples, class_incremental
from cl_platform.errors import CurriculumError
from streams.curricula.distances import distances, items_of
from tests.helpers.hand_made import (
    BLOBS,
    DIFFICULT,
    assert_one_line,
    curriculum,
    items,
    order_of,
    stream_of,
)

# --- samples


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


# --- difficulties


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
