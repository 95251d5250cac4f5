"""Parity with Avalanche's metrics: both sides see the same logits of an untrained and three trained
models. Where definitions differ, a test says how, with both values by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.engine.evaluation import credit
from cl_platform.metrics.matrix_metrics import compute_metrics
from tests.metrics.test_matrix_metrics import R

pytestmark = pytest.mark.filterwarnings("ignore")  # there are many in Avalanche

CLASSES = [[0, 3], [5, 1], [2, 4]]
UNEQUAL, EQUAL = [40, 30, 20], [30, 30, 30]  # samples per experience
T = len(CLASSES)


@pytest.fixture(scope="module")
def avalanche() -> Any:
    """The package, imported here because that takes long. Without it nothing here can pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import avalanche.benchmarks
        import avalanche.evaluation.metrics
        import avalanche.training
    return avalanche


class Recorded(nn.Module):
    """A "model" that looks the logits of a sample up by its number: (steps, samples, classes)."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.step = 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[self.step, x[:, 0].long()] + 0 * self.unused


def labels(sizes: list[int]) -> list[Tensor]:
    return [torch.tensor(c).repeat(n // 2) for c, n in zip(CLASSES, sizes, strict=True)]


def logits(sizes: list[int]) -> Tensor:
    """(T+1, samples, 6): noise, and what each experience has been learned by each step."""
    learned = torch.tensor([[0.0, 0.2, 0], [3, 0.5, 0], [4, 3, 1], [1, 2, 3]])
    noise = torch.randn(T + 1, sum(sizes), 6, generator=torch.Generator().manual_seed(0))
    right = nn.functional.one_hot(torch.cat(labels(sizes)), 6)
    return noise + learned.repeat_interleave(torch.tensor(sizes), dim=1)[:, :, None] * right


def ours(recorded: Tensor, sizes: list[int], seen_only: bool = False) -> AccuracyMatrix:
    rows = []
    for step, row in enumerate(recorded):
        allowed = torch.ones(1, 6, dtype=torch.bool)
        if seen_only:
            allowed[0] = False
            allowed[0, [c for group in CLASSES[:step] for c in group]] = True
        parts = zip(row.split(sizes), labels(sizes), strict=True)
        rows.append([float(credit(x, y, allowed).mean()) for x, y in parts])
    return AccuracyMatrix(np.array(rows))


def theirs(
    avalanche: Any, recorded: Tensor, sizes: list[int], untrained: bool = True
) -> list[dict[str, float]]:
    """By short name, what Avalanche reports before training (if asked) and after each experience."""
    metrics = avalanche.evaluation.metrics
    model = Recorded(recorded)
    parts = [
        metrics.accuracy_metrics(experience=True, stream=True, trained_experience=True),
        metrics.forgetting_metrics(experience=True, stream=True),
        metrics.bwt_metrics(experience=True, stream=True),
        metrics.forward_transfer_metrics(experience=True, stream=True),
    ]
    learner = avalanche.training.supervised.Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        eval_mb_size=16,
        evaluator=avalanche.training.plugins.EvaluationPlugin(*parts, loggers=[]),
        eval_every=0,
    )
    make = avalanche.benchmarks.utils._make_taskaware_tensor_classification_dataset
    numbers = torch.arange(sum(sizes)).float()[:, None].split(sizes)
    data = [
        make(x, y, task_labels=torch.zeros_like(y))
        for x, y in zip(numbers, labels(sizes), strict=True)
    ]
    benchmark = avalanche.benchmarks.benchmark_from_datasets(train=data, test=data)
    reports = [learner.eval(benchmark.test_stream)] if untrained else []
    for step, experience in enumerate(benchmark.train_stream, start=1):
        learner.train(experience, eval_streams=[])
        model.step = step
        reports.append(learner.eval(benchmark.test_stream))
    short = "/eval_phase/test_stream"
    return [{name.replace(short, ""): v for name, v in report.items()} for report in reports]


# --- the same


@pytest.mark.parametrize("sizes", [UNEQUAL, EQUAL], ids=str)
def test_accuracies_forgetting_and_transfer_are_the_same(avalanche: Any, sizes: list[int]) -> None:
    recorded = logits(sizes)
    r, reports = ours(recorded, sizes), theirs(avalanche, recorded, sizes)
    matrix = [[report[f"Top1_Acc_Exp/Exp00{j}"] for j in range(T)] for report in reports]
    assert r.values == pytest.approx(np.array(matrix))
    assert r.values.std() > 0.1, "or there would be little to compare"
    for name, stream in [
        ("forgetting_since_learned", "StreamForgetting"),
        ("backward_transfer", "StreamBWT"),
        ("forward_transfer", "StreamForwardTransfer"),
    ]:
        assert compute_metrics(r)[name] == pytest.approx(reports[-1][stream])
        assert abs(reports[-1][stream]) > 0.05


def test_the_means_over_a_stream_are_the_same_for_experiences_of_one_size(avalanche: Any) -> None:
    recorded = logits(EQUAL)
    r, reports = ours(recorded, EQUAL), theirs(avalanche, recorded, EQUAL)
    assert compute_metrics(r)["average_accuracy"] == pytest.approx(reports[-1]["Top1_Acc_Stream"])
    learned_so_far = [report["Accuracy_On_Trained_Experiences"] for report in reports[1:]]
    assert compute_metrics(r)["average_incremental_accuracy"] == pytest.approx(
        np.mean(learned_so_far)
    )


def test_accuracy_among_seen_classes_is_their_cumulative_accuracy(avalanche: Any) -> None:
    recorded = logits(UNEQUAL)
    r = ours(recorded, UNEQUAL, seen_only=True)
    for step in range(1, T + 1):
        seen = [c for group in CLASSES[:step] for c in group]
        for j, y in enumerate(labels(UNEQUAL)[:step]):
            metric = avalanche.evaluation.metrics.cumulative_accuracies.CumulativeAccuracy()
            metric.update({0: seen}, recorded[step].split(UNEQUAL)[j], y)
            assert r[step, j] == pytest.approx(metric.result()[0])


# --- the differences


def by_their_definition(metric: Any) -> float:
    """The mean of their `Forgetting` or `BWT` over the experiences of R (tests/test_metrics.py)."""
    for j in range(len(R)):
        metric.update(j, R[j + 1, j], initial=True)
        if j < len(R) - 1:
            metric.update(j, R[-1, j])
    return float(np.mean(list(metric.result().values())))


def test_difference_their_forgetting_starts_from_learning_chaudhrys_from_the_best(
    avalanche: Any,
) -> None:
    metrics = avalanche.evaluation.metrics
    forgetting = by_their_definition(metrics.Forgetting())
    # The first experience was at 0.80 when learned, at 0.90 one step later and is at 0.50.
    assert forgetting == pytest.approx(((0.80 - 0.50) + (0.70 - 0.60)) / 2)
    assert compute_metrics(R)["forgetting"] == pytest.approx(((0.90 - 0.50) + (0.70 - 0.60)) / 2)
    assert compute_metrics(R)["forgetting_since_learned"] == pytest.approx(forgetting)
    assert compute_metrics(R)["backward_transfer"] == pytest.approx(
        by_their_definition(metrics.BWT())
    )


def test_difference_their_stream_accuracy_weighs_experiences_by_size(avalanche: Any) -> None:
    recorded = logits(UNEQUAL)
    r, last = ours(recorded, UNEQUAL), theirs(avalanche, recorded, UNEQUAL)[-1]
    assert last["Top1_Acc_Stream"] == pytest.approx(np.average(r.values[-1], weights=UNEQUAL))
    assert compute_metrics(r)["average_accuracy"] == pytest.approx(r.values[-1].mean())
    assert abs(compute_metrics(r)["average_accuracy"] - last["Top1_Acc_Stream"]) > 0.01


def test_difference_of_tied_logits_theirs_takes_the_first_and_ours_a_share(avalanche: Any) -> None:
    y, tied, anything = torch.tensor([0, 0, 0, 1]), torch.zeros(4, 2), torch.ones(1, 2).bool()
    metric = avalanche.evaluation.metrics.Accuracy()
    metric.update(tied, y)
    assert metric.result() == 3 / 4  # whatever is tied is class 0
    assert float(credit(tied, y, anything).mean()) == 1 / 2


def test_difference_where_nothing_can_be_forgotten_yet_theirs_is_0_and_ours_undefined(
    avalanche: Any,
) -> None:
    recorded = logits(UNEQUAL)
    after_one = theirs(avalanche, recorded, UNEQUAL)[1]
    one = AccuracyMatrix(ours(recorded, UNEQUAL).values[:2, :1])
    for name, stream in [
        ("forgetting_since_learned", "StreamForgetting"),
        ("backward_transfer", "StreamBWT"),
    ]:
        assert after_one[stream] == 0
        assert np.isnan(compute_metrics(one)[name])


def test_difference_their_baseline_of_forward_transfer_is_the_first_evaluation_there_is(
    avalanche: Any,
) -> None:
    recorded = logits(UNEQUAL)
    r = ours(recorded, UNEQUAL)
    late = theirs(avalanche, recorded, UNEQUAL, untrained=False)[-1]["StreamForwardTransfer"]
    # Without one before training, it is that after the first experience: one transfer is left.
    assert late == pytest.approx(r[2, 2] - r[1, 2])
    expected = ((r[1, 1] - r[0, 1]) + (r[2, 2] - r[0, 2])) / 2
    assert compute_metrics(r)["forward_transfer"] == pytest.approx(expected)
    assert abs(late - expected) > 0.01
