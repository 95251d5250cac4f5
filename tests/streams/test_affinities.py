"""Affinities from data and from files: known values, directions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from cl_platform import Stream
from cl_platform.core.order.affinity import affinity_of, ask
from cl_platform.core.rng import seed_for
from cl_platform.errors import BadInput, ClpError
from streams.affinities.divergences import bhattacharyya, js, mmd, normal_divergence
from streams.affinities.leep import leep, nce
from streams.curricula.distances import distances, items_of
from tests.helpers.hand_made import assert_one_line, items, stream_of

# Two tasks on the same axis, of which the first is told by its sign and the second by its size;
# and one on another axis.
STREAM = stream_of(
    [[-3, 0], [3, 0], [-6, 0.5], [-2, 0.5], [0, -3], [0, 3]], [[0, 1], [2, 3], [4, 5]], n=40
)
SEED = seed_for(0, 0, "affinity")
SOURCED = ("leep", "nce", "logme", "esm")
COMPARED = ("mmd", "js", "bhattacharyya", "kl", "wasserstein")


def matrix(stream: Stream, name: str, **parameters: object) -> np.ndarray:
    return ask(stream, affinity_of({"name": name, **parameters}))


# --- known values


def test_leep_and_nce_of_a_toy() -> None:
    theta = np.array([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 0, 1, 1])
    assert leep(theta, labels) == pytest.approx(-0.474030, abs=1e-6)
    assert nce(theta.argmax(1), labels) == 0
    assert nce(np.zeros(4, dtype=int), labels) == pytest.approx(-np.log(2))
    assert leep(theta, labels + 7) == leep(theta, labels)  # whatever the numbers of the classes


def test_divergences_of_known_distributions() -> None:
    p, q = np.array([[0.0], [1.0]]), np.array([[1.0], [4.0]])  # N(0, 1) and N(1, 2^2)
    assert normal_divergence(p, q) == pytest.approx(0.443147, abs=1e-6)
    assert normal_divergence(q, p) == pytest.approx(1.306853, abs=1e-6)
    assert normal_divergence(p, q, 0.5) == pytest.approx(0.323144, abs=1e-6)
    assert normal_divergence(p, q, 1 - 1e-7) == pytest.approx(normal_divergence(p, q), abs=1e-6)
    one, two = np.array([0.5, 0.5, 0]), np.array([0.25, 0.25, 0.5])
    assert js(one, two) == pytest.approx(0.215762, abs=1e-6)
    assert bhattacharyya(one, two) == pytest.approx(0.346574, abs=1e-6)
    x, y = np.array([[0.0], [1], [2]]), np.array([[1.0], [2], [3]])
    assert mmd(x, y) == pytest.approx(0.219754, abs=1e-6)


def test_wasserstein_is_the_distance_of_normal_variables() -> None:
    """W2^2 of N(0, 1) and N(1, 2^2) is 2, by samples at their quantiles."""
    grid = norm.ppf((np.arange(100) + 0.5) / 100)[:, None]
    assert distances(items(grid, 1 + 2 * grid), "ot")[0, 1] == pytest.approx(2, abs=0.05)


# --- matrices


@pytest.mark.parametrize("name", [*SOURCED, *COMPARED])
def test_a_matrix_is_repeatable_and_needs_no_test_data(name: str) -> None:
    found = matrix(STREAM, name)
    assert found.shape == (3, 3)
    assert not found.diagonal().any()
    again = affinity_of(name)(STREAM.without_test_data(), np.random.default_rng(SEED))
    assert np.array_equal(again - np.diag(again.diagonal()), found)


@pytest.mark.parametrize("name", ["mmd", "js", "bhattacharyya", "wasserstein"])
def test_divergences_are_symmetric_and_put_the_near_ones_together(name: str) -> None:
    found = matrix(STREAM, name)
    assert found == pytest.approx(found.T)
    assert (found <= 0).all()
    assert found[0, 1] > found[1, 2]


def test_kl_knows_the_wide_from_the_narrow() -> None:
    stream = stream_of([[0, 0], [1, 0], [0, 0], [9, 0]], [[0, 1], [2, 3]], n=50)
    found = matrix(stream, "kl")
    assert found[1, 0] > found[0, 1]  # the wide one covers the narrow one


@pytest.mark.parametrize("name", SOURCED)
def test_a_source_that_sees_the_same_axis_helps_more(name: str) -> None:
    found = matrix(STREAM, name)
    assert found[1, 0] > found[2, 0]
    if name != "nce":  # to which all that lies on one side of a border is alike
        assert found[0, 1] > found[2, 1]


def test_the_distance_of_means_is_one_as_well() -> None:
    expected = distances(items_of(STREAM, "experiences", "pixels", 100), "euclidean")
    assert np.array_equal(matrix(STREAM, "wasserstein", distance="euclidean"), -expected)


# --- files


def test_a_json_file_is_read_by_the_names_of_experiences(tmp_path: Path) -> None:
    names = [e.name for e in STREAM.experiences]
    values = np.arange(9.0).reshape(3, 3)
    order = [2, 0, 1]
    document = {
        "experiences": [names[i] for i in order],
        "matrix": values[np.ix_(order, order)].tolist(),
    }
    path = tmp_path / "affinity.json"
    path.write_text(json.dumps(document))
    found = matrix(STREAM, "file", path=str(path))
    assert np.array_equal(found, values - np.diag(values.diagonal()))
    document["matrix"][0][1] = 50.0
    path.write_text(json.dumps(document))  # an edit is seen
    assert matrix(STREAM, "file", path=str(path))[2, 0] == 50


def test_a_csv_file_has_sources_in_rows(tmp_path: Path) -> None:
    a, b, c = (e.name for e in STREAM.experiences)
    path = tmp_path / "affinity.csv"
    path.write_text(f'source,{b},{a},{c}\n{a},1,,2\n\n{c},5,4,\n{b},,-3,"6"\n')
    found = matrix(STREAM, "file", path=str(path))
    assert found.tolist() == [[0, 1, 2], [-3, 0, 6], [4, 5, 0]]


NAMES = json.dumps([e.name for e in STREAM.experiences])
MATRIX = "[[0, 1, 2], [3, 0, 4], [5, 6, 0]]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no matrix"),
        ("{", "holds no matrix"),
        ('{"experiences": ["a"]}', "holds no matrix (KeyError"),
        ('{"experiences": ["a"], "matrix": [["high"]]}', "holds no matrix (ValueError"),
        ('{"experiences": ["a"], "matrix": [[1, 2]]}', "1 names and a matrix of shape (1, 2)"),
        ('{"experiences": ["a", "b", "c"], "matrix": ' + MATRIX + "}", "'a' is unknown"),
        (f'{{"experiences": {NAMES}, "matrix": {MATRIX.replace("4", "null")}}}', "gives nan from"),
        ("source,a,b\na,1,2\n", "holds no matrix"),
        ("source,a,b\na,1,2\nb,x,2\n", "could not convert string to float"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        matrix(STREAM, "file", path=str(path))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    assert_one_line(caught.value)


def test_a_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"affinity file absent\.json cannot be read") as caught:
        matrix(STREAM, "file", path="absent.json")
    assert_one_line(caught.value)


# --- what is refused


def test_a_source_of_a_single_class_has_no_model() -> None:
    stream = stream_of([[0], [1], [2]], [[0, 1], [2]], n=10)
    with pytest.raises(BadInput, match=r"has a single class, .* give affinity mmd") as caught:
        matrix(stream, "leep")
    assert_one_line(caught.value)
    assert matrix(stream, "mmd").shape == (2, 2)


@pytest.mark.parametrize(
    "section", ["leap", {"name": "leep", "sample": 3}, {"name": "kl", "order": 2}]
)
def test_wrong_names_and_parameters_are_one_line(section: object) -> None:
    with pytest.raises(ClpError) as caught:
        affinity_of(section)
    assert_one_line(caught.value)
