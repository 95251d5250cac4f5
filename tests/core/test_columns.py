"""Streams that are scored on other experiences than they train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Experience, Stream
from cl_platform.config.signatures import build
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import BadInput
from cl_platform.metrics.matrix_metrics import compute_metrics
from cl_platform.metrics.registry import metrics


def blobs(scenario: str = "class", experiences: int = 3, validation: bool = False) -> Stream:
    section = {"name": "blobs", "samples_per_class": 20, "experiences": experiences}
    stream: Stream = build("stream", section)
    if validation:
        stream = stream.each(lambda e: replace(e, validation=e.test))
    return replace(stream, scenario=scenario)


def again(stream: Stream, order: list[int]) -> Stream:
    """Return a stream whose experiences come in an order with repetitions."""
    return replace(stream, experiences=tuple(stream[i] for i in order), columns=stream.experiences)


def held_out(stream: Stream, n: int) -> Stream:
    """Return a stream whose last experiences are scored and not learned."""
    return replace(stream, experiences=stream.experiences[:-n], columns=stream.experiences)


def test_columns_of_their_own_are_no_change_where_they_are_the_experiences(tmp_path: Path) -> None:
    stream = blobs(scenario="domain")
    plain = clp.run(stream, "er", out=tmp_path)
    apart = clp.run(replace(stream, columns=stream.experiences), "er", out=tmp_path)
    assert apart.matrix == plain.matrix
    assert apart.metrics == plain.metrics
    assert apart.visits == []


def test_an_experience_that_comes_again_is_one_column() -> None:
    stream = again(blobs(scenario="task"), [0, 1, 0, 2, 1])
    result = clp.run(stream, "ewc", out=None)
    assert result.matrix.values.shape == (6, 3)
    assert result.matrix.visits == (0, 1, 0, 2, 1)
    assert [column for column, _ in result.visits] == [0, 1, 0, 2, 1]
    model = result.model(retrain=True, stream=stream)
    assert model is not None


def test_strategies_know_a_returning_experience_by_its_index() -> None:
    seen = []

    class Watches(clp.Strategy):
        def begin_experience(self, experience: Experience) -> None:
            seen.append((self.index, self.returning, self.info.n_experiences))

    clp.run(again(blobs(), [1, 0, 1]), Watches(), out=None)
    assert seen == [(0, False, 2), (1, False, 2), (0, True, 2)]


def test_strategies_that_learn_each_experience_once_are_refused() -> None:
    with pytest.raises(BadInput, match="they come again"):
        clp.run(again(blobs(), [0, 1, 0]), "icarl", out=None)


def test_a_repeated_experience_counts_once_in_joint_and_cumulative_training() -> None:
    stream = blobs(scenario="domain")
    for strategy in ("joint", "cumulative"):
        once = clp.run(stream, strategy, out=None)
        twice = clp.run(again(stream, [*range(len(stream)), 0]), strategy, out=None)
        assert twice.matrix.values.shape == (len(stream) + 2, len(stream))
        np.testing.assert_array_equal(twice.matrix.values[1], once.matrix.values[1])


def test_held_out_columns_change_no_bit_of_the_others_and_no_metric_of_theirs(
    tmp_path: Path,
) -> None:
    stream = blobs(scenario="domain", experiences=4)
    short = replace(stream, experiences=stream.experiences[:3])
    plain = clp.run(short, "er", out=tmp_path)
    states = {p.name for p in tmp_path.glob("states/*.pt")}
    result = clp.run(held_out(stream, 1), "er", out=tmp_path)
    assert {p.name for p in tmp_path.glob("states/*.pt")} == states
    assert result.matrix.held_out == (3,)
    assert result.matrix.trained() == plain.matrix
    every = {name for name, m in metrics("matrix").items() if m.columns == "trained"}
    assert {n: v for n, v in result.metrics.items() if n in every} == pytest.approx(
        {n: v for n, v in plain.metrics.items() if n in every}, nan_ok=True
    )
    assert clp.Result.load(result.path).matrix.held_out == (3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, columns=s.experiences[:2]), "belong to the columns"),
        (
            lambda s: held_out(replace(s, experiences=s.experiences[::-1]), 1),
            "held out behind them",
        ),
        (lambda s: replace(s, columns=s.experiences, open=True), "open stream has no columns"),
        (lambda s: again(s, [0, 1]).regrouped(range(s.n_classes)), "curriculum.level=experiences"),
        (lambda s: again(s, [0, 1]).followed_by(s), "cannot follow each other"),
        (lambda s: again(s, [0, 1]).to_avalanche(), "no place for"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        change(blobs())


def test_a_teacher_watches_what_it_teaches() -> None:
    stream = blobs(validation=True)
    columns = tuple(replace(e, name=f"{e.name}!") for e in stream.experiences)
    with pytest.raises(BadInput, match="is scored on other experiences"):
        clp.run(replace(stream, columns=columns), "er", curriculum="teacher:alp", out=None)


@pytest.mark.parametrize("strategy", ["er", "joint"])
def test_rows_on_demand_are_those_of_a_whole_matrix(tmp_path: Path, strategy: str) -> None:
    stream = blobs(experiences=5)
    whole = clp.run(stream, strategy, out=None, evaluate_every=2)
    some = clp.run(stream, strategy, out=tmp_path, evaluate=2, evaluate_every=2)
    last = clp.run(stream, strategy, out=tmp_path, evaluate="last", evaluate_every=2)
    if strategy == "er":
        assert some.matrix.rows == (0, 2, 4, 5)
        assert last.matrix.rows == (0, 5)
    np.testing.assert_array_equal(some.matrix.values, whole.matrix.values[list(some.matrix.rows)])
    np.testing.assert_array_equal(last.matrix.values, whole.matrix.values[list(last.matrix.rows)])
    for result in (some, last):
        assert result.cost["steps"] == whole.cost["steps"]
        assert result.cost["samples"] == whole.cost["samples"]
        assert clp.Result.load(result.path).matrix == result.matrix
    assert [p[0] for p in some.anytime] == sorted(p[0] for p in some.anytime)


def test_rows_left_out_are_in_no_metric_by_halves() -> None:
    values = [[0, 0, 0, 0], [0.9, 0.6, 0, 0], [0.5, 0.5, 0.5, 0.8]]
    found = compute_metrics(AccuracyMatrix(values, rows=(0, 2, 4)))
    assert found["forgetting_since_learned"] == pytest.approx((0.4 + 0.1) / 2)
    assert found["learning_accuracy"] == pytest.approx((0.9 + 0.6 + 0.8) / 3)  # not of the third
    found = compute_metrics(AccuracyMatrix([values[0], values[2]], rows=(0, 4)))
    for name in ("forgetting", "forgetting_since_learned", "first_task_retention"):
        assert np.isnan(found[name])
    assert found["learning_accuracy"] == 0.8
    assert found["average_incremental_accuracy"] == found["average_accuracy"]


def test_a_run_that_was_evaluated_less_goes_on_from_its_states(tmp_path: Path) -> None:
    stream = blobs()
    last = clp.run(stream, "er", out=tmp_path, evaluate="last")
    before = {p.name for p in tmp_path.glob("states/*.pt")}
    whole = clp.run(stream, "er", out=tmp_path)
    assert {p.name for p in tmp_path.glob("states/*.pt")} == before
    assert whole.matrix.last() == last.matrix.last()
    assert whole.cost["steps"] == last.cost["steps"]


def test_seen_classes_are_all_of_the_segments() -> None:
    stream = blobs(experiences=2)
    first, second = stream.experiences
    both = clp.Samples.concat([first.train, second.train])
    mixed = Experience(
        "mixed", (*first.classes, *second.classes), 0, both, first.validation, first.test
    )
    result = clp.run(
        replace(stream, experiences=(mixed, second), columns=stream.experiences), "er", out=None
    )
    assert (result.matrix.values[1] > 0.5).all()  # the second is seen after the first
    assert torch.equal(torch.tensor(result.matrix.visits), torch.tensor([0, 1]))
