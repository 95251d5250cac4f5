"""Orders from a directed affinity: known ones, ties, symmetry, and the search for the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import cl_platform as clp
from cl_platform import Stream
from cl_platform.core.order.curriculum import ask
from cl_platform.errors import BadInput, CurriculumError
from streams.curricula import transfer
from streams.curricula.transfer import ranked, scores, usefulness
from tests.helpers.hand_made import BLOBS, assert_one_line, curriculum, stream_of

Ordered = Callable[..., list[int]]


def stream(n: int) -> Stream:
    return stream_of([[c] for c in range(n)], [[c] for c in range(n)], n=3)


@pytest.fixture
def order(tmp_path: Path) -> Ordered:
    """The order that a curriculum gives a matrix."""

    def given(name: str, matrix: np.ndarray, **parameters: object) -> list[int]:
        made = curriculum(name, affinity=written(tmp_path, matrix), **parameters)
        return list(ask(stream(len(matrix)), made, 0))

    return given


def written(folder: Path, matrix: np.ndarray) -> dict[str, str]:
    names = [f"class {c}" for c in range(len(matrix))]
    path = folder / "affinity.json"
    path.write_text(json.dumps({"experiences": names, "matrix": np.asarray(matrix).tolist()}))
    return {"name": "file", "path": str(path)}


def random_matrix(n: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, n))
    np.fill_diagonal(found, 0)
    return found


A = np.array([[0, 1, 3], [3, 0, 0], [2, 5, 0]])


def test_orders_of_a_small_matrix(order: Ordered) -> None:
    assert order("useful_first", A) == [2, 0, 1]  # 3.5, 2, 1.5
    assert order("transfer_chain", A) == [2, 1, 0]  # 2 helps 1 by 5; then 0, the only one left
    assert order("transfer_chain", A, start=0) == [0, 2, 1]
    assert order("linear_ordering", A) == [2, 1, 0]  # 5 + 2 + 3
    assert order("towards", A, target=1) == [0, 2, 1]
    assert order("towards", A, target="class 1", best="first") == [2, 0, 1]


def test_a_chain_looks_at_the_mean_or_the_best_of_those_before(order: Ordered) -> None:
    matrix = np.array([[0, 9, 9, 9], [0, 0, 6, 4], [0, 0, 0, 0], [0, 0, 0, 0]])
    matrix[0, 2:] = [0, 3]
    assert order("transfer_chain", matrix, start=0) == [0, 1, 3, 2]  # means 3 and 3.5
    assert order("transfer_chain", matrix, start=0, help="max") == [0, 1, 2, 3]  # 6 and 4


@pytest.mark.parametrize("name", ["useful_first", "transfer_chain", "linear_ordering"])
@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_ties_go_to_the_first(order: Ordered, name: str, n: int) -> None:
    assert order(name, np.ones((n, n))) == list(range(n))
    assert order("towards", np.ones((n, n)), target=0) == [*range(1, n), 0]


# --- linear ordering


@pytest.mark.parametrize("n", [2, 4, 6])
def test_the_best_order_is_the_best_of_all(n: int) -> None:
    matrix = random_matrix(n)

    def total(order: tuple[int, ...]) -> float:
        return sum(matrix[order[i], order[j]] for i in range(n) for j in range(i + 1, n))

    orders = sorted(permutations(range(n)), key=lambda o: -total(o))
    found = ranked(matrix, 3)
    assert [tuple(o) for _, o in found] == orders[:3]
    assert [s for s, _ in found] == pytest.approx([total(o) for o in orders[:3]])
    assert tuple(ranked(matrix, 1, worst=True)[0][1]) == orders[-1]


@pytest.mark.parametrize("n", [3, 7, 8, 11])
def test_the_transposed_matrix_reverses_the_optimum(order: Ordered, n: int) -> None:
    matrix = random_matrix(n, seed=n)
    best = order("linear_ordering", matrix)
    reverse = order("linear_ordering", matrix.T)
    here, there = scores(matrix, np.array([best])), scores(matrix.T, np.array([reverse]))
    assert here == pytest.approx(there)
    assert scores(matrix.T, np.array([best[::-1]])) == pytest.approx(here)
    if n <= 8:  # the optimum itself
        assert reverse == best[::-1]


@pytest.mark.parametrize("n", [4, 10])
def test_in_a_symmetric_matrix_all_orders_are_equal(n: int) -> None:
    matrix = random_matrix(n)
    matrix += matrix.T
    rng = np.random.default_rng(1)
    found = scores(matrix, np.array([rng.permutation(n) for _ in range(50)]))
    assert found == pytest.approx(np.full(50, matrix.sum() / 2))


def test_the_local_search_finds_a_hidden_order_and_stops_where_no_insertion_helps() -> None:
    rng = np.random.default_rng(2)
    hidden = rng.permutation(30)
    place = hidden.argsort()
    matrix = (place[:, None] < place[None]).astype(float) + 0.3 * rng.normal(size=(30, 30))
    score, found = ranked(matrix, 1)[0]
    assert score >= scores(matrix, hidden[None])[0]
    for a in range(30):
        rest = [*found[:a], *found[a + 1 :]]
        moved = np.array([[*rest[:b], found[a], *rest[b:]] for b in range(30)])
        assert scores(matrix, moved).max() <= score + 1e-9


def test_the_search_is_near_the_optimum_where_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrices = [random_matrix(7, seed) for seed in range(20)]
    exact = [ranked(m, 1)[0][0] for m in matrices]
    monkeypatch.setattr(transfer, "EXHAUSTIVE", 0)
    near = [ranked(m, 1)[0][0] for m in matrices]
    assert all(n <= e + 1e-9 for n, e in zip(near, exact, strict=True))
    assert sum(near) > 0.97 * sum(exact)


# --- scores


def test_each_has_the_highest_score_for_its_own_order(tmp_path: Path) -> None:
    matrix = random_matrix(5)
    section, given = written(tmp_path, matrix), stream(5)
    every = [list(o) for o in permutations(range(5))]
    for name in ("linear_ordering", "useful_first"):
        made = curriculum(name, affinity=section)
        found = list(made.scores(given, every))
        assert all(type(score) is float for score in found)
        assert every[int(np.argmax(found))] == list(ask(given, made, 0))
    chain = curriculum("transfer_chain", affinity=section)
    expected = matrix[0, 3] + (matrix[0, 1] + matrix[3, 1]) / 2
    expected += matrix[[0, 3, 1], 2].mean() + matrix[[0, 3, 1, 2], 4].mean()
    assert chain.scores(given, [[0, 3, 1, 2, 4]]) == pytest.approx([expected])
    with pytest.raises(CurriculumError, match="gives orders no scores"):
        curriculum("towards", affinity=section, target=0).scores(given, every)


def test_usefulness_is_the_mean_over_the_others() -> None:
    assert usefulness(A + np.eye(3)).tolist() == [2, 1.5, 3.5]


# --- runs


def test_a_run_takes_the_order_and_its_affinity_is_in_the_result(tmp_path: Path) -> None:
    affinity = {"name": "kl", "samples": 20}
    given = {"name": "linear_ordering", "affinity": affinity}
    result = clp.run("blobs", "finetune", curriculum=given, out=None)
    assert result.config["curriculum"]["affinity"] == affinity
    made = curriculum("linear_ordering", affinity=affinity)
    blobs = BLOBS
    assert list(result.order) == list(ask(blobs, made, 0)) == ranked(made.matrix(blobs), 1)[0][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "towards", "affinity": "mmd", "target": "zebra"}, r"curriculum\.target=zebra: give the name or the index of an experience: 0 \("),
        ({"name": "towards", "affinity": "mmd", "target": 5}, r"curriculum\.target=5"),
        ({"name": "towards", "affinity": "mmd"}, r"curriculum\.target is missing"),
        ({"name": "transfer_chain", "affinity": "mmd", "start": 5}, r"curriculum\.start=5: give 0 to 4"),
        ({"name": "useful_first", "affinity": "mnd"}, "Did you mean 'mmd'"),
        ({"name": "useful_first", "affinity": "mmd", "level": "classes"}, "affinity is between experiences"),
        ({"name": "useful_first", "affinity": 3}, "curriculum.affinity"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line(given: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        clp.run("blobs", "finetune", curriculum=given, out=None)
    assert_one_line(caught.value)
