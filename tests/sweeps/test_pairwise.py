"""Measured affinities: how much is trained, the bits of separate runs, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform import Stream
from cl_platform.core.order.affinity import affinity_of, ask, key_of
from cl_platform.errors import BadInput, ClpError
from tests.helpers.hand_made import BLOBS, assert_one_line, stream_of

MODEL = {"name": "mlp", "hidden": [8]}


def validated(means: list[list[float]], groups: list[list[int]], **fields: Any) -> Stream:
    """A stream with validation and test data of their own."""
    train, validation, test = (
        stream_of(means, groups, n=n, spread=3.0, seed=seed, **fields)
        for seed, n in enumerate((24, 30, 4))
    )
    parts = tuple(
        replace(e, validation=v.train, test=t.train)
        for e, v, t in zip(train.experiences, validation.experiences, test.experiences, strict=True)
    )
    return replace(train, experiences=parts)


SIX = validated(
    [[8 * np.cos(k), 8 * np.sin(k)] for k in range(12)], [[2 * k, 2 * k + 1] for k in range(6)]
)
THREE = replace(SIX, experiences=SIX.experiences[:3])


def measured(stream: Stream, **parameters: Any) -> np.ndarray:
    base = {"model": MODEL, "strategy": "finetune", **parameters.pop("base", {})}
    return ask(stream, affinity_of({"name": "pairwise", "base": base, **parameters}))


def test_six_experiences_train_36_steps_and_the_matrix_is_that_of_separate_runs(
    tmp_path: Path,
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    strategy = {"name": "tests.helpers.sweep_strategies:Noted", "log": str(log)}
    found = measured(SIX, base={"strategy": strategy}, mask="task", out=str(out))
    names = Counter(line.split(maxsplit=4)[4] for line in log.read_text().splitlines())
    assert names == {e.name: 1 + 5 for e in SIX.experiences}  # once alone, and after each other

    def accuracies(i: int, j: int) -> tuple[float, float]:
        """Those of i alone and of j after i in a whole run that shares nothing."""
        order = [i, j, *(k for k in range(6) if k not in (i, j))]
        whole = clp.run(SIX, "finetune", model=MODEL, curriculum=order, out=None)
        matrix = whole.validation["task"]
        return matrix[1, 0], matrix[2, 1]

    pairs = [(0, 3), (3, 5), (5, 0)]
    separate = {pair[0]: accuracies(*pair) for pair in pairs}
    for i, j in pairs:
        assert found[i, j] == separate[i][1] - separate[j][0]
    assert len(np.unique(found)) > 5  # there is something to compare
    assert not found.diagonal().any()

    again = measured(SIX, base={"strategy": strategy}, mask="seen", out=str(out))
    assert len(log.read_text().splitlines()) == 36  # all of it is looked up
    assert not np.array_equal(again, found)


def test_it_reads_validation_data_and_no_test_data() -> None:
    found = measured(THREE)
    hidden = THREE.without_test_data()
    assert np.array_equal(measured(hidden), found)
    section = affinity_of({"name": "pairwise", "base": {"model": MODEL}})
    assert key_of(hidden, section) == key_of(THREE, section)


def test_seeds_are_averaged() -> None:
    parts = [measured(THREE, base={"seed": seed}, mask="task") for seed in (3, 4)]
    both = measured(THREE, base={"seed": 3}, seeds=2, mask="task")
    assert both == pytest.approx((parts[0] + parts[1]) / 2, abs=1e-15)


def test_its_key_covers_the_code_and_settings_of_the_runs() -> None:
    def key(**base: Any) -> str:
        given = {"name": "pairwise", "base": {"model": MODEL, **base}}
        return key_of(THREE, affinity_of(given))

    assert len({key(), key(strategy="finetune"), key(seed=1), key(epochs=2)}) == 4


def test_a_single_experience_has_no_pairs() -> None:
    assert measured(replace(SIX, experiences=SIX.experiences[:1])).tolist() == [[0]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"base": {"strategy": "joint"}}, "'joint' trains on the whole stream at once"),
        ({"base": {"stream": "blobs"}}, r"affinity\.base\.stream: the stream is that"),
        ({"base": {"epochs": 0}}, "epochs=0"),
        ({"base": {"strategy": "finetun"}}, "Did you mean 'finetune'"),
        ({"base": {"lr": 1e30}}, "run .* failed at experience"),
        ({"mask": "none"}, "affinity.mask=none"),
        ({"workers": 1, "base": {"device": "cuda"}}, "device|cuda"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused_is_one_line(parameters: dict, message: str) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        measured(THREE, **parameters)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (BLOBS, r"has no validation data, .* give stream\.validation"),
        (replace(THREE, open=True), r"is open, .* leave stream\.open out"),
    ],
)
def test_a_stream_that_cannot_be_measured_is_refused(stream: Stream, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        measured(stream)
    assert_one_line(caught.value)
