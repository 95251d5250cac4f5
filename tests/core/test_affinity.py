"""The contract of an affinity: what it sees, what it may return, its key, and real transfer data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from cl_platform import Affinity, Stream
from cl_platform.core.order.affinity import affinity_of, ask, is_symmetric, key_of, reciprocity
from cl_platform.errors import BadInput, ContractError
from tests.helpers.hand_made import assert_one_line, stream_of

STREAM = stream_of([[0], [1], [2], [3]], [[0], [1], [2], [3]], n=5)


class Made(Affinity):
    """Random numbers that a seed and a parameter decide."""

    scale: float = 1.0
    content: str = ""
    log: str = ""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{[(len(e.train), len(e.test)) for e in stream.experiences]}\n")
        return self.scale * rng.normal(size=(len(stream), len(stream)))

    def reads(self, stream: Stream) -> Any:
        return self.content


class Faulty(Affinity):
    """Returns or raises what it is told."""

    what: str

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        n = len(stream)
        if self.what == "wide":
            return np.zeros((n, n + 1))
        if self.what == "nan":
            return np.where(np.eye(n, dtype=bool), 0, np.nan)
        if self.what == "text":
            return np.array([["a"] * n] * n)
        raise RuntimeError("out of\nluck")


def test_it_sees_no_test_data_and_is_asked_once(tmp_path: Path) -> None:
    given = Made(log=str(tmp_path / "log"))
    found = ask(STREAM, given)
    assert ask(STREAM, given) is found
    assert (tmp_path / "log").read_text() == f"{[(5, 0)] * 4}\n"
    assert not found.diagonal().any()
    with pytest.raises(ValueError, match="read-only"):
        found[0, 1] = 2


def test_its_key_covers_seed_parameters_data_and_what_it_reads() -> None:
    other = stream_of([[0], [1], [2], [3]], [[0], [1], [2], [3]], n=5, seed=1)
    keys = [
        key_of(STREAM, Made()),
        key_of(STREAM, Made(), seed=1),
        key_of(STREAM, Made(scale=2.0)),
        key_of(STREAM, Made(content="edited")),
        key_of(other, Made()),
        key_of(STREAM.reordered([1, 0, 2, 3]), Made()),
        key_of(STREAM, affinity_of("mmd")),
    ]
    assert len({*keys}) == len(keys)
    assert key_of(STREAM.without_test_data(), Made()) == keys[0]
    assert not np.array_equal(ask(STREAM, Made()), ask(STREAM, Made(), seed=1))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("wide", r"returned shape \(4, 5\): expected \(4, 4\)"),
        ("nan", "gives nan from 'class 0' to 'class 1'"),
        ("text", "failed: ValueError"),
        ("raise", "failed: RuntimeError: out of luck"),
    ],
)
def test_what_is_wrong_with_one_is_a_line(what: str, message: str) -> None:
    with pytest.raises((BadInput, ContractError), match=message) as caught:
        ask(STREAM, Faulty(what=what))
    assert "Faulty" in str(caught.value)
    assert_one_line(caught.value)


def test_one_of_a_user_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own_affinity.py"
    path.write_text(
        "import numpy as np\n"
        "from cl_platform import Affinity\n\n\n"
        "class Ones(Affinity):\n"
        "    factor: int = 1\n\n"
        "    def __call__(self, stream, rng):\n"
        "        return self.factor * np.ones((len(stream), len(stream)))\n"
    )
    found = ask(STREAM, affinity_of({"name": f"{path}:Ones", "factor": 3}))
    assert np.array_equal(found, 3 * (1 - np.eye(4)))
    with pytest.raises(BadInput, match="expected an Affinity"):
        affinity_of("streams.curricula.encoders:pixels")


def test_reciprocity_of_made_matrices() -> None:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(6, 6)), 1)
    assert reciprocity(upper + upper.T) == pytest.approx(1)
    assert reciprocity(upper - upper.T) == pytest.approx(-1)
    assert is_symmetric(upper + upper.T)
    assert not is_symmetric(upper)
    assert np.isnan(reciprocity(np.zeros((3, 3))))
    assert np.isnan(reciprocity(np.zeros((1, 1))))


def taskweb(path: Path, composite: bool) -> np.ndarray:
    """Transfer between 22 tasks, A[source, target]; nan where it was not measured."""
    data = json.loads((path / "taskweb" / "transfer.json").read_text())
    names = data["tasks"]
    found = np.full((len(names), len(names)), np.nan)
    for target, row in data["transfer"].items():
        for source, settings in row.items():
            change, share = settings["overall"]
            score = 0.5 * change + 0.5 * (0.2 * share - 0.1)
            found[names.index(source), names.index(target)] = score if composite else change
    return found


def test_real_transfer_says_little_of_the_other_direction(real_data: Path) -> None:
    """Between 22 tasks of TaskWeb, that i helps j hardly tells whether j helps i.

    Rank correlations: over unordered pairs, of which the one with the lower number gives i, and
    over ordered pairs, where each counts both ways.
    """
    change, score = taskweb(real_data, composite=False), taskweb(real_data, composite=True)
    assert np.isfinite(change).sum() == 441
    upper = np.triu_indices(len(change), 1)
    one, other = change[upper], change.T[upper]
    both = np.isfinite(one) & np.isfinite(other)
    by_pair = spearmanr(one[both], other[both])
    assert by_pair.statistic == pytest.approx(-0.015, abs=5e-4)
    assert by_pair.pvalue == pytest.approx(0.83, abs=5e-3)
    assert reciprocity(score) == pytest.approx(0.142, abs=5e-4)
    assert reciprocity(change) == pytest.approx(-0.026, abs=5e-4)
    negative = (change[np.isfinite(change)] < 0).mean()
    assert negative == pytest.approx(0.35, abs=0.01)
