"""The Curriculum Designer's scores: golden values, a slow reference, properties, beam search."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from streams.curricula import designer

DISTANCES = np.array(
    [[0, 1, 2, 3, 4], [1, 0, 5, 6, 7], [2, 5, 0, 8, 9], [3, 6, 8, 0, 10], [4, 7, 9, 10, 0]]
)

# What the published code stores for candy, pencil, shipwreck, stars2 and wave: rows that are
# normalised already and, coming from samples of both sides, not symmetric.
PUBLISHED = np.array(
    [
        [0, 0.3033680575096338, 0.30868775787662206, 0.12112389037152005, 0.2668202942422241],
        [0.28291609003947304, 0, 0.20190376748181726, 0.2654308199293407, 0.24974932254936896],
        [0.29295092888525337, 0.2054622781792781, 0, 0.27624814124565356, 0.225338651689815],
        [0.13496173229437916, 0.3171351531533316, 0.32434314531166974, 0, 0.22355996924061955],
        [0.2743073952947338, 0.27531836369283613, 0.24410623694419575, 0.20626800406823428, 0],
    ]
)
PUBLISHED_VARIANCES = [
    0.2367730605600722,
    0.17352470003833273,
    0.17834738752288762,
    0.23930478868144642,
    0.172050063197261,
]


def random_distances(seed: int, n: int) -> np.ndarray:
    """Symmetric, with a zero diagonal and no ties."""
    upper = np.triu(np.random.default_rng(seed).random((n, n)), 1)
    return upper + upper.T


def slow_score(distances: np.ndarray, order: list[int]) -> float:
    """The formula, one number after the other, with nothing but lists."""
    n = len(order)
    d = [[0.0 if i == j else float(distances[i][j]) for j in range(n)] for i in range(n)]
    d = [[x / sum(row) if sum(row) else 0.0 for x in row] for row in d]
    v = [sum((x - sum(row) / n) ** 2 for x in row) / n for row in d]
    v = [x / sum(v) if sum(v) else 1 / n for x in v]
    score = 1 - v[order[0]]
    i = 0
    while i < n // 2:
        opposite = order[n - 1 - i]
        score += 1 - d[order[i]][opposite] + d[order[i]][order[i + 1]]
        i += 1
    return score


matrices = st.builds(random_distances, st.integers(0, 2**32), st.integers(1, 7))


# --- golden values


def test_variances_of_an_example() -> None:
    expected = [0.212952, 0.228879, 0.217388, 0.184617, 0.156165]
    assert designer.variances(DISTANCES) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("order", "expected"),
    [((0, 1, 2, 3, 4), 2.434416694), ((4, 3, 2, 1, 0), 3.117909474)],
)
def test_scores_of_an_example(order: tuple[int, ...], expected: float) -> None:
    (score,) = designer.scores(DISTANCES, np.array(order))
    assert score == pytest.approx(expected, abs=1e-9)


def test_ranks_of_an_example() -> None:
    best = designer.ranked(DISTANCES, 2)
    assert [order for _, order in best] == [[3, 2, 4, 0, 1], [2, 3, 4, 1, 0]]
    assert [score for score, _ in best] == pytest.approx([3.181124, 3.180760], abs=1e-6)
    ((score, order),) = designer.ranked(DISTANCES, 1, worst=True)
    assert order == [2, 0, 1, 4, 3]
    assert score == pytest.approx(2.232612, abs=1e-6)


def test_variances_of_the_published_table() -> None:
    assert designer.normalised(PUBLISHED) == pytest.approx(PUBLISHED, abs=1e-12)
    assert designer.variances(PUBLISHED) == pytest.approx(PUBLISHED_VARIANCES, abs=1e-9)


def test_a_table_that_is_not_symmetric_is_read_by_rows() -> None:
    """From a row's item to the others: what comes first is what distances are counted from."""
    for order in permutations(range(5)):
        (score,) = designer.scores(PUBLISHED, np.array(order))
        assert score == pytest.approx(slow_score(PUBLISHED, list(order)), abs=1e-12)
    assert designer.variances(PUBLISHED.T) != pytest.approx(PUBLISHED_VARIANCES, abs=1e-3)


# --- properties of the scores


@pytest.mark.parametrize("n", range(1, 10))
def test_scores_agree_with_a_slow_loop(n: int) -> None:
    rng = np.random.default_rng(n)
    distances = rng.random((n, n))  # neither symmetric nor zero on the diagonal, which is ignored
    orders = np.array([rng.permutation(n) for _ in range(20)])
    expected = [slow_score(distances, list(order)) for order in orders]
    assert designer.scores(distances, orders) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_a_score_does_not_depend_on_how_items_are_numbered(distances, random) -> None:
    n = len(distances)
    number = random.sample(range(n), n)  # what item i of the renumbered ones was before
    order = np.array(random.sample(range(n), n))
    renumbered = distances[np.ix_(number, number)]
    found = designer.scores(renumbered, order)
    assert found == pytest.approx(designer.scores(distances, np.array(number)[order]), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(matrices, st.floats(1e-6, 1e6))
def test_the_scale_of_the_distances_does_not_matter(distances, scale) -> None:
    orders = np.array([np.arange(len(distances)), np.arange(len(distances))[::-1]])
    found = designer.scores(distances * scale, orders)
    assert found == pytest.approx(designer.scores(distances, orders), abs=1e-9)
    assert designer.ranked(distances * scale, 1)[0][0] == pytest.approx(
        designer.ranked(distances, 1)[0][0], abs=1e-9
    )


def test_the_distances_that_are_given_are_left_alone() -> None:
    given = DISTANCES.astype(float) + np.eye(5)
    before = given.copy()
    designer.ranked(given, 3)
    designer.variances(given)
    assert np.array_equal(given, before)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 12])
@pytest.mark.parametrize("worst", [False, True])
def test_items_that_do_not_differ_have_scores_all_the_same(n: int, worst: bool) -> None:
    zeros = np.zeros((n, n))
    assert designer.variances(zeros) == pytest.approx([1 / n] * n)
    found = designer.ranked(zeros, 3, worst=worst)
    assert [score for score, _ in found] == pytest.approx([1 - 1 / n + n // 2] * len(found))
    assert all(sorted(order) == list(range(n)) for _, order in found)


def test_one_item_that_is_far_from_all_others_gives_no_nan() -> None:
    """The others do not differ at all: their rows hold a single 1."""
    distances = np.zeros((6, 6))
    distances[2, :] = distances[:, 2] = 1
    found = designer.ranked(distances, 720)
    assert np.isfinite([score for score, _ in found]).all()
    # The share of the variances is 25/126 for all but the one. Of the three pairs one can count
    # 1 - 0 + 1 or 1 - 1 + 0 instead of 1, by what follows its first and what stands opposite.
    assert found[0] == (pytest.approx(5 - 25 / 126), [0, 1, 2, 3, 4, 5])
    assert found[-1][0] == pytest.approx(3 - 25 / 126)


# --- ranks


@settings(max_examples=30, deadline=None)
@given(matrices, st.integers(1, 30), st.booleans())
def test_ranked_orders_are_different_and_sorted_by_score(distances, k, worst) -> None:
    n = len(distances)
    found = designer.ranked(distances, k, worst=worst)
    every = np.array(list(permutations(range(n))))
    assert len(found) == min(k, len(every))
    assert len({tuple(order) for _, order in found}) == len(found)
    assert all(sorted(order) == list(range(n)) for _, order in found)
    scores = [score for score, _ in found]
    assert designer.scores(distances, np.array([o for _, o in found])) == pytest.approx(scores)
    expected = sorted(designer.scores(distances, every), reverse=not worst)[:k]
    assert scores == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("worst", [False, True])
def test_the_worst_are_the_best_from_the_other_end(worst: bool) -> None:
    distances = random_distances(3, 5)
    there = [order for _, order in designer.ranked(distances, 120, worst=worst)]
    back = [order for _, order in designer.ranked(distances, 120, worst=not worst)]
    # Two orders have the same score if they differ in what the formula does not look at.
    scores = designer.scores(distances, np.array(there))
    assert designer.scores(distances, np.array(back)) == pytest.approx(scores[::-1])
    assert sorted(there) == sorted(back) == [list(order) for order in permutations(range(5))]


@pytest.mark.parametrize("worst", [False, True])
def test_ties_stand_in_the_order_of_the_items(worst: bool) -> None:
    same = 1 - np.eye(5)
    orders = [order for _, order in designer.ranked(same, 120, worst=worst)]
    assert orders == [list(order) for order in permutations(range(5))]


@pytest.mark.parametrize("worst", [False, True])
@pytest.mark.parametrize("n", [4, 5, 6])
def test_ties_that_rounding_blurs_stand_in_the_order_of_the_items(n: int, worst: bool) -> None:
    """Points on a circle: 2n orders each have one score, the last bits of which may differ."""
    angles = 2 * np.pi * np.arange(n) / n
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = designer.ranked(distances, 1000, worst=worst)
    ties: dict[float, list[list[int]]] = {}
    for score, order in found:
        ties.setdefault(round(score, 9), []).append(order)
    assert all(len(orders) % (2 * n) == 0 for orders in ties.values())
    assert all(orders == sorted(orders) for orders in ties.values())


# --- the beam search


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("worst", [False, True])
def test_beam_search_of_few_items_finds_the_best(
    monkeypatch: pytest.MonkeyPatch, n: int, worst: bool
) -> None:
    """Up to 6 items its 256 beginnings leave nothing out that could end differently."""
    for seed in range(20):
        distances = random_distances(seed, n)
        monkeypatch.setattr(designer, "EXHAUSTIVE", 8)
        ((exact, _),) = designer.ranked(distances, 1, worst=worst)
        monkeypatch.setattr(designer, "EXHAUSTIVE", 0)
        ((found, order),) = designer.ranked(distances, 1, worst=worst)
        assert found == pytest.approx(exact, abs=1e-9)
        assert slow_score(distances, order) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("worst", [False, True])
@pytest.mark.parametrize("n", [7, 8])
def test_beam_search_of_more_items_nearly_always_finds_the_best(
    monkeypatch: pytest.MonkeyPatch, n: int, worst: bool
) -> None:
    """From 7 items on it drops beginnings, and now and then one that would have ended well."""
    short = []
    for seed in range(40 if n == 7 else 5):
        distances = random_distances(seed, n)
        monkeypatch.setattr(designer, "EXHAUSTIVE", 8)
        ((exact, _),) = designer.ranked(distances, 1, worst=worst)
        monkeypatch.setattr(designer, "EXHAUSTIVE", 0)
        ((found, _),) = designer.ranked(distances, 1, worst=worst)
        short.append((found - exact) if worst else (exact - found))
    assert min(short) > -1e-9  # nothing is better than the best
    assert max(short) < 0.02
    assert sum(s > 1e-9 for s in short) <= len(short) / 20


@pytest.mark.parametrize("n", [9, 10, 13, 20])
def test_beam_search_beats_5000_random_orders(n: int) -> None:
    rng = np.random.default_rng(n)
    distances = random_distances(n, n)
    tried = designer.scores(distances, np.array([rng.permutation(n) for _ in range(5000)]))
    best, worst = designer.ranked(distances, 50), designer.ranked(distances, 50, worst=True)
    for found in (best, worst):
        assert len({tuple(order) for _, order in found}) == 50
        assert all(sorted(order) == list(range(n)) for _, order in found)
        assert all(
            score == pytest.approx(slow_score(distances, order), abs=1e-9) for score, order in found
        )
    assert best[0][0] >= tried.max()
    assert worst[0][0] <= tried.min()
    assert [s for s, _ in best] == sorted((s for s, _ in best), reverse=True)
    assert [s for s, _ in worst] == sorted(s for s, _ in worst)


def test_beam_search_is_the_same_every_time_and_however_items_are_numbered() -> None:
    distances = random_distances(4, 15)
    number = np.random.default_rng(0).permutation(15)
    first = designer.ranked(distances, 10)
    assert first == designer.ranked(distances, 10)
    renumbered = designer.ranked(distances[np.ix_(number, number)], 10)
    assert [s for s, _ in renumbered] == pytest.approx([s for s, _ in first], abs=1e-9)


@pytest.mark.parametrize("worst", [False, True])
def test_beam_search_looks_at_the_right_candidates(
    monkeypatch: pytest.MonkeyPatch, worst: bool
) -> None:
    """More items than are tried for either end: those that are tried are the ones that count."""
    n = 2 * designer.CANDIDATES + 5
    distances = random_distances(0, n)
    ((score, order),) = designer.ranked(distances, 1, worst=worst)
    assert sorted(order) == list(range(n))
    assert score == pytest.approx(slow_score(distances, order), abs=1e-9)
    monkeypatch.setattr(designer, "CANDIDATES", n)
    ((full, _),) = designer.ranked(distances, 1, worst=worst)
    # The first and last items alone make 1 - v + 1 - d + d'; orders differ by about 1 in all.
    assert score == pytest.approx(full, abs=0.003)


def test_ties_beyond_exhaustive_search_stand_in_the_order_of_the_items() -> None:
    orders = [order for _, order in designer.ranked(1 - np.eye(10), 40)]
    assert orders == sorted(orders)
