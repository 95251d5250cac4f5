"""Metrics of predictions, by hand and against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from cl_platform.core.predictions import NO_CLASS, Predicted, Predictions
from cl_platform.errors import BadInput
from cl_platform.metrics.prediction_metrics import (
    agreement,
    auc,
    confusion,
    macro_f1,
    negative_flips,
    top5_accuracy,
    top_accuracy,
)


def row(
    y: Sequence[int],
    predicted: Sequence[int],
    n_classes: int = 3,
    sizes: Sequence[int] = (),
    scores: np.ndarray | None = None,
) -> Predicted:
    right, likeliest = np.array(y), np.array(predicted)
    given = np.array(sizes or [len(y)])
    credit = (right == likeliest).astype(float)
    return Predicted(right, likeliest[:, None], credit, given, n_classes, scores)


def run(*rows: Predicted, ids: Sequence[str] = ("a",), held_out: Sequence[int] = ()) -> Predictions:
    return Predictions([True] * len(rows), lambda i: rows[i], ids, ids, held_out)


def scored(n: int, n_classes: int) -> Predicted:
    """Random predictions with probabilities."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(n_classes), n).astype(np.float16)
    y, top = rng.integers(0, n_classes, n), np.argsort(-p, axis=1, kind="stable")[:, :5]
    return Predicted(y, top, (top[:, 0] == y) * 1.0, np.array([n]), n_classes, p)


def test_a_confusion_matrix_by_hand() -> None:
    found = confusion(row([0, 0, 1, 2, 2], [0, 1, 1, NO_CLASS, 0]))
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_macro_f1_by_hand() -> None:
    # class 0: tp 1, fp 1, fn 1; class 1: tp 1, fp 1, fn 0; class 2: tp 0; class 3 is not there
    found = macro_f1(run(row([0, 0, 1, 2, 2], [0, 1, 1, NO_CLASS, 0], n_classes=4)))
    assert found == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_they_are_those_of_scikit_learn() -> None:
    p = scored(300, 8)
    assert p.scores is not None
    assert confusion(p).tolist() == confusion_matrix(p.y, p.likeliest).tolist()
    assert macro_f1(run(p)) == pytest.approx(f1_score(p.y, p.likeliest, average="macro"))
    exact = p.scores.astype(np.float64)
    assert top5_accuracy(run(p)) == pytest.approx(top_k_accuracy_score(p.y, exact, k=5), abs=0.01)
    even = exact / exact.sum(1, keepdims=True)
    expected = roc_auc_score(p.y, even, multi_class="ovr", average="macro")
    assert auc(run(p)) == pytest.approx(expected, abs=1e-3)  # the ranks may change by rounding


def test_auc_of_two_classes_by_hand() -> None:
    second = np.array([0.1, 0.4, 0.35, 0.8], np.float16)
    p = row([0, 0, 1, 1], [0, 0, 0, 1], 2, scores=np.stack([1 - second, second], 1))
    assert auc(run(p)) == pytest.approx(3 / 4)  # of four pairs, one stands the wrong way round


def test_what_is_undefined_is_nan() -> None:
    p = row([0, 1], [0, 1])
    assert math.isnan(auc(run(p)))  # no scores
    assert math.isnan(top5_accuracy(run(p)))  # of three classes
    assert math.isnan(auc(run(row([0, 0], [0, 0], 2, scores=np.ones((2, 2), np.float16)))))
    assert math.isnan(negative_flips(run(p, p)))  # the untrained row is no learner


def test_top_k_by_hand() -> None:
    y, top = np.array([0, 1, 2]), np.array([[0, 1, 2], [0, 1, 2], [0, 1, 3]])
    p = Predicted(y, top, np.array([1.0, 0, 0]), np.array([3]), 6)
    assert [top_accuracy(p, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    for k in (0, 6):
        with pytest.raises(BadInput, match=f"k={k}: the 5 likeliest classes are kept"):
            top_accuracy(p, k)


def test_negative_flips_by_hand() -> None:
    untrained = row([0, 1, 2, 0], [0, 1, 2, 0])
    first = row([0, 1, 2, 0], [0, 1, 0, 1])
    second = row([0, 1, 2, 0], [1, 1, 2, 1])  # the first sample is lost
    third = row([0, 1, 2, 0], [1, 0, 0, 0])  # two are lost
    assert negative_flips(run(untrained, first, second, third)) == pytest.approx(
        (1 / 4 + 2 / 4) / 2
    )


def test_agreement_is_of_the_same_samples_whatever_the_order() -> None:
    one = run(row([0, 1, 2], [0, 1, 0], sizes=[1, 2]), ids=["a", "b"])
    other = run(row([1, 2, 0], [1, 2, 0], sizes=[2, 1]), ids=["b", "a"])
    assert agreement(one, other) == agreement(other, one) == pytest.approx(2 / 3)
    assert agreement(one, one) == 1
    with pytest.raises(BadInput, match="not the same ones"):
        agreement(one, run(row([0], [0])))


def test_held_out_columns_are_left_out_of_what_is_trained() -> None:
    p = run(row([0, 1, 2], [0, 1, 0], sizes=[2, 1]), ids=["a", "b"], held_out=[1])
    assert (macro_f1(p), macro_f1(p.trained())) == (pytest.approx(5 / 9), 1)
    assert p.trained().experience_ids == ("a",)
