"""Calibration errors and accuracies by class: by hand, by another computation, and in results."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Result, Samples
from cl_platform.config.run_config import parse_config
from cl_platform.core.matrix import OWN_MASK, AccuracyMatrix
from cl_platform.engine.evaluation import Evaluator, Scores, bin_of, confidence
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.planner import make_plan
from cl_platform.metrics.matrix_metrics import calibration_error
from cl_platform.storage.state_store import StateStore
from tests.engine.test_evaluation import CPU, Constant, Oracle, oracle_stream, set_up


class Given(Constant):
    """Its logits are its inputs."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return x


def stream_of(logits: Tensor, y: Tensor, groups: list[tuple[int, ...]]) -> clp.Stream:
    """A stream of samples whose inputs are the logits that they get."""
    samples = Samples.of(logits, y)
    return clp.class_incremental(
        "given", groups, list("abcdef")[: logits.shape[1]], samples, samples
    )


def scores_of(stream: clp.Stream, seen: set[int]) -> Scores:
    return Evaluator(stream, CPU)(set_up(Given(), stream), seen)


def binned_error(logits: np.ndarray, y: np.ndarray, allowed: np.ndarray) -> float:
    """Guo et al. 2017, eq. 3, word by word, where no two logits are equal."""
    powers = np.exp(logits.astype(np.float64)) * allowed
    sure = (powers / powers.sum(1, keepdims=True)).max(1)
    right = (powers.argmax(1) == y).astype(np.float64)
    error = 0.0
    for m in range(15):
        inside = (sure > m / 15) & (sure <= (m + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - sure[inside].mean())
            error += inside.mean() * gap
    return error


def test_by_hand() -> None:
    """Nine in ten sure and right half of the time, six in ten sure and always right."""
    odds = torch.tensor([9.0, 9.0, 1.5, 1.5]).log()
    logits = torch.stack([odds, torch.zeros(4)], 1)
    stream = stream_of(logits, torch.tensor([0, 1, 0, 0]), [(0, 1)])
    found = scores_of(stream, {0, 1})
    expected = 0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6)
    assert found.calibration == {stream[0].identity: pytest.approx(expected, abs=1e-6)}
    assert found.class_accuracy == [1.0, 0.0]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_against_another_computation(scenario: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3000, 6, generator=generator)
    y = torch.randint(6, (3000,), generator=generator)
    groups = [(0, 5), (1, 2), (3, 4)]
    stream = replace(stream_of(logits, y, groups), scenario=scenario)
    seen = {0, 1, 2, 5}
    found = scores_of(stream, seen)
    right = np.zeros(6)
    for e in stream.experiences:
        mask = {"class": seen, "task": set(e.classes), "domain": set(range(6))}[scenario]
        allowed = np.array([c in mask for c in range(6)])
        rows, labels = e.test.x.numpy(), e.test.y.numpy()
        expected = binned_error(rows, labels, allowed)
        assert found.calibration[e.identity] == pytest.approx(expected, abs=1e-6)
        answers = np.where(allowed, rows, -np.inf).argmax(1)
        for c in e.classes:
            right[c] = (answers[labels == c] == c).mean()
    assert found.class_accuracy == pytest.approx(right.tolist(), abs=1e-6)


def test_a_class_counts_in_all_experiences_that_have_it() -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([0, 1, 1, 1])
    first = stream_of(logits, y, [(0, 1)])[0]
    stream = clp.Stream("two", "domain", (first, replace(first, task=1)), ("a", "b", "c"))
    stream = replace(stream, experiences=tuple(_padded(e) for e in stream.experiences))
    assert scores_of(stream, set()).class_accuracy == [1.0, pytest.approx(1 / 3, abs=1e-6), None]


def _padded(e: clp.Experience) -> clp.Experience:
    """The experience with a third logit that is never the largest."""
    x = torch.nn.functional.pad(e.test.x, (0, 1), value=-5.0)
    samples = Samples.of(x, e.test.y)
    return replace(e, train=samples, test=samples, validation=samples.emptied())


def test_who_is_as_sure_as_right_is_calibrated() -> None:
    stream = oracle_stream()
    found = Evaluator(stream, CPU)(set_up(Constant(), stream), {0, 1, 2, 3})
    assert list(found.calibration.values()) == pytest.approx([0, 0, 1 / 4], abs=1e-6)
    assert found.class_accuracy == pytest.approx([1 / 4] * 4 + [0, 0])


def test_nothing_seen_has_no_confidence_and_no_right_answer() -> None:
    stream = oracle_stream()
    found = Evaluator(stream, CPU)(set_up(Oracle(), stream), set())
    assert list(found.calibration.values()) == [None] * 3
    assert found.class_accuracy == [0.0] * 6


def test_details_do_not_depend_on_chunks_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(500, 4, generator=torch.Generator().manual_seed(2))
    y = torch.arange(4).repeat(125)
    expected = scores_of(stream_of(logits, y, [(0, 1), (2, 3)]), {0, 1, 2})
    shuffled = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    for chunk, rows in ((1000, shuffled), (7, torch.arange(500)), (64, shuffled)):
        monkeypatch.setattr("cl_platform.engine.evaluation.CHUNK", chunk)
        found = scores_of(stream_of(logits[rows], y[rows], [(0, 1), (2, 3)]), {0, 1, 2})
        assert list(found.calibration.values()) == list(expected.calibration.values())
        assert found.class_accuracy == expected.class_accuracy


def test_confidence_is_the_largest_probability_of_an_allowed_class() -> None:
    logits = torch.tensor([[5.0, math.log(3), 0.0], [5.0, 0.0, float("-inf")]])
    allowed = torch.tensor([[False, True, True]])
    assert confidence(logits, allowed).tolist() == pytest.approx([3 / 4, 1.0])
    assert confidence(logits, ~allowed & False).isnan().all()


def test_a_bin_holds_its_upper_bound() -> None:
    sure = torch.tensor([0.0, 0.01, 0.2, 0.2001, 0.5, 1.0, float("nan")], dtype=torch.float64)
    assert bin_of(sure).tolist() == [0, 0, 2, 3, 7, 14, 0]


def test_the_metric_is_the_mean_of_the_last_row() -> None:
    errors = AccuracyMatrix([[np.nan, np.nan], [0.5, 0.9], [0.2, 0.1]])
    assert calibration_error(errors) == pytest.approx(0.15)
    assert math.isnan(calibration_error(AccuracyMatrix([[np.nan], [np.nan]])))


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_a_result_holds_them_and_gives_them_back(tmp_path: Path, scenario: str) -> None:
    result = clp.run("blobs", "er", scenario=scenario, out=tmp_path)
    assert result.calibration is not None
    assert result.class_accuracy is not None
    assert result.calibration.values.shape == (6, 5)
    assert result.calibration.experience_ids == result.matrix.experience_ids
    assert result.class_accuracy.shape == (6, 10)
    assert bool(np.isnan(result.calibration.values[0]).all()) is (scenario == "class")
    assert result.metrics["calibration_error"] == result.calibration.values[-1].mean()
    # As many test samples in every class: the mean over classes is the mean over experiences.
    assert result.class_accuracy[-1].mean() == pytest.approx(
        result.metrics["average_accuracy"], abs=1e-6
    )
    text = (result.path / "result.json").read_text()  # type: ignore[operator]
    assert "NaN" not in text
    again = Result.from_json(json.loads(text))
    assert again.calibration == result.calibration
    assert np.array_equal(again.class_accuracy, result.class_accuracy, equal_nan=True)


def test_only_the_own_mask_is_calibrated_and_its_metric_has_no_prefix() -> None:
    result = clp.run({"name": "split-digits", "validation": 0.2}, "finetune", out=None)
    named = [m for m in result.metrics if m.endswith("calibration_error")]
    assert named == ["calibration_error"]
    assert OWN_MASK[result.scenario] == "seen"


def test_results_of_before_are_read(tmp_path: Path) -> None:
    first = clp.run("blobs", "finetune", out=tmp_path)
    data = first.to_json()
    for name in ("calibration", "class_accuracy", "anytime"):
        del data[name]
    del data["metrics"]["calibration_error"]
    old = Result.from_json(data)
    assert old.calibration is None
    assert old.class_accuracy is None
    assert old.anytime == []
    assert old.matrix == first.matrix
    assert Result.from_json(json.loads(json.dumps(old.to_json()))).matrix == first.matrix


@pytest.mark.parametrize("strategy", ["finetune", "joint"])
def test_part_of_a_stream_has_the_error_of_its_experiences(strategy: str) -> None:
    plan = make_plan(parse_config({"stream": "blobs", "strategy": strategy}))
    whole = execute(plan, None)
    assert whole.calibration is not None
    metrics = advance(plan, StateStore(None), 2)
    expected = whole.calibration.values[2, :2].mean()
    assert metrics["calibration_error"] == pytest.approx(expected)
