"""Tasks with the cosines that were asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from cl_platform import Stream
from cl_platform.core.order.curriculum import ask
from cl_platform.errors import BadInput
from streams.curricula.designed import DistantChain, SimilarChain
from streams.known.gram import directions, form, gram

GIVEN = np.array([[1, 0.6, -0.3], [0.6, 1, 0.1], [-0.3, 0.1, 1]])


@pytest.mark.parametrize(
    "cosines",
    [form("equal", 0.4, 7, 2), form("blocks", 0.7, 5, 2), form("path", -0.8, 6, 2), GIVEN],
    ids=["equal", "blocks", "path", "given"],
)
def test_the_cosines_are_those_of_the_matrix(cosines: np.ndarray) -> None:
    w = directions(cosines, 32, np.random.default_rng(3))
    assert w.shape == (len(cosines), 32)
    assert np.abs(w @ w.T - cosines).max() < 1e-6


def test_the_named_forms() -> None:
    assert form("equal", 0.4, 2, 2).tolist() == [[1, 0.4], [0.4, 1]]
    assert form("path", 0.5, 3, 2).tolist() == [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]
    blocks = form("blocks", 0.5, 5, 2)
    assert (blocks[:3, 3:] == 0).all()
    assert (blocks[3:, 3:] == [[1, 0.5], [0.5, 1]]).all()
    assert (blocks[0] == [1, 0.5, 0.5, 0, 0]).all()


def test_labels_are_the_polynomial_at_its_median() -> None:
    stream = gram(GIVEN.tolist(), degrees=[1, 2], dimensions=4, shift=0, noise=0, data_seed=5)
    w = directions(GIVEN, 4, np.random.default_rng(5))
    for task, e in enumerate(stream.experiences):
        assert e.train.y.bincount().tolist() == [250, 250]
        s = e.train.x.double().numpy() @ w[task]
        value = s + s**2 if task == 1 else s
        assert (e.train.y.numpy() == (value > np.median(value))).all()
        assert ((e.test.x.double().numpy() @ w[task] > 0) == e.test.y.numpy()).mean() > 0.7


@pytest.mark.parametrize(
    ("curriculum", "similarity", "expected"),
    [
        (SimilarChain(start=0), "path", [0, 1, 2, 3, 4, 5]),
        (DistantChain(start=0), "path", [0, 5, 1, 4, 2, 3]),
        (SimilarChain(start=4), "blocks", [1, 1, 1, 0, 0, 0]),
        (DistantChain(start=0), "blocks", [0, 1, 0, 1, 0, 1]),
    ],
)
def test_chains_follow_the_given_similarities(
    curriculum: SimilarChain, similarity: Literal["path", "blocks"], expected: list[int]
) -> None:
    stream = gram(similarity, 0.8, experiences=6, shift=10, samples=100, test_samples=1)
    order = ask(stream, curriculum, seed=0)
    assert [i // 3 if similarity == "blocks" else i for i in order] == expected


def test_mean_inputs_have_the_same_cosines() -> None:
    stream = gram("path", 0.9, experiences=4, shift=10, samples=1000, test_samples=1)
    means = torch.stack([e.train.x.mean(0) for e in stream.experiences]).double().numpy()
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(means @ means.T - form("path", 0.9, 4, 2)).max() < 0.02


def identities(stream: Stream) -> list[str]:
    return [e.identity for e in stream.experiences]


def test_a_seed_gives_the_same_stream_and_all_settings_count() -> None:
    small = {"experiences": 3, "samples": 8, "test_samples": 4}
    first = identities(gram(**small))  # type: ignore[arg-type]
    assert identities(gram(**small)) == first  # type: ignore[arg-type]
    for other in ({"p": 0.5}, {"data_seed": 1}, {"degrees": [2]}, {"shift": 1}, {"noise": 9}):
        assert identities(gram(**{**small, **other}))[0] != first[0]  # type: ignore[arg-type]


def test_in_the_task_scenario_each_has_classes_of_its_own() -> None:
    stream = gram(scenario="task", experiences=3, samples=10, test_samples=4, validation=0.4)
    assert [e.classes for e in stream.experiences] == [(0, 1), (2, 3), (4, 5)]
    assert [len(e.validation) for e in stream.experiences] == [4, 4, 4]
    assert stream.class_names[3] == "task 2: high"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"p": -0.5, "experiences": 4}, "smallest eigenvalue of the matrix is -0.5"),
        ({"similarity": [[1, 0.5], [0.4, 1]]}, "give a symmetric matrix"),
        ({"similarity": [[1, 0.5]]}, "give a symmetric matrix"),
        ({"similarity": [[2, 0.5], [0.5, 1]]}, "1 on its diagonal"),
        ({"dimensions": 3}, "7 tasks need as many dimensions"),
    ],
)
def test_what_belongs_to_no_directions_is_refused(given: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        gram(**given)
    assert len(str(caught.value)) < 500
