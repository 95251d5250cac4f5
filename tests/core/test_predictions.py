"""Predictions: what is stored of an evaluation gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cl_platform.core.predictions import (
    NO_CLASS,
    Gathering,
    Predicted,
    Predictions,
    row_bytes,
    unpacked,
)
from cl_platform.engine.evaluation import credit
from cl_platform.errors import BadInput

CPU = torch.device("cpu")


def packed(logits: torch.Tensor, y: torch.Tensor, allowed: torch.Tensor, sizes: list[int]) -> dict:
    gathering = Gathering(len(y), logits.shape[1], True, CPU)
    masked = logits.masked_fill(~allowed, -torch.inf)
    for rows in torch.arange(len(y)).split(3):  # in chunks, as an evaluation does
        gathering.add(masked[rows], credit(logits[rows], y[rows], allowed.expand_as(logits)[rows]))
    return gathering.packed(y, [str(i) for i in range(len(sizes))], sizes)


def test_ties_and_forbidden_classes_come_back_as_they_were() -> None:
    logits = torch.tensor(
        [
            [3.0, 2.0, 1.0, 9.0],  # right
            [3.0, 3.0, 1.0, 9.0],  # shared by two, one of them right
            [2.0, 2.0, 2.0, 9.0],  # shared by three
            [3.0, 3.0, 1.0, 9.0],  # shared by two, none of them right
            [0.0, 2.0, 1.0, 9.0],  # wrong
        ]
    )
    y, allowed = torch.tensor([0, 1, 2, 2, 3]), torch.tensor([[True, True, True, False]])
    found = unpacked(packed(logits, y, allowed, [2, 3]), ["0", "1"], range(4))
    assert found.credit.tolist() == [1, 1 / 2, 1 / 3, 0, 0]
    assert found.right.tolist() == [True, False, False, False, False]
    assert found.top[0].tolist() == [0, 1, 2, NO_CLASS]
    assert found.top[4].tolist() == [1, 2, 0, NO_CLASS]
    assert found.accuracies().tolist() == [3 / 4, (1 / 3) / 3]
    assert found.scores is not None
    assert found.scores.sum(1) == pytest.approx(1, abs=2e-3)
    assert (found.scores[:, 3] == 0).all()


def test_where_nothing_may_be_predicted_there_is_no_class() -> None:
    nothing, y = torch.zeros(1, 2, dtype=torch.bool), torch.tensor([0, 1])
    found = unpacked(packed(torch.zeros(2, 2), y, nothing, [2]), ["0"], range(2))
    assert found.likeliest.tolist() == [NO_CLASS, NO_CLASS]
    assert found.credit.tolist() == [0, 0]
    assert found.scores is not None
    assert np.isnan(found.scores).all()
    # Logits of -inf where a class may be predicted: all that may be share.
    none, everything = torch.full((2, 2), -torch.inf), torch.ones(1, 2, dtype=torch.bool)
    found = unpacked(packed(none, y, everything, [2]), ["0"], range(2))
    assert found.likeliest.tolist() == [NO_CLASS, NO_CLASS]
    assert found.credit.tolist() == [1 / 2, 1 / 2]


def test_random_logits_with_ties_give_the_credit_that_was_given() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (200, 9), generator=draw).float()
    y = torch.randint(0, 9, (200,), generator=draw)
    allowed = torch.rand(200, 9, generator=draw) < 0.7
    found = unpacked(packed(logits, y, allowed, [150, 50]), ["0", "1"], range(9))
    expected = credit(logits, y, allowed)
    assert found.credit.tolist() == expected.tolist()
    sums = torch.zeros(2, dtype=torch.float64)
    sums.index_add_(0, torch.tensor([0] * 150 + [1] * 50), expected)  # as the evaluation adds
    assert found.accuracies().tolist() == (sums / torch.tensor([150, 50])).tolist()


def test_columns_and_classes_stand_as_asked_for() -> None:
    y = torch.tensor([0, 1, 2])
    stored = packed(10 * torch.eye(3)[[0, 1, 1]], y, torch.ones(1, 3, dtype=torch.bool), [1, 2])
    # In the run, class 0 as given was 2, 1 was 0 and 2 was 1.
    found = unpacked(stored, ["1", "0"], [2, 0, 1])
    assert found.y.tolist() == [2, 0, 1]
    assert found.likeliest.tolist() == [2, 2, 1]
    assert found.sizes.tolist() == [2, 1]
    assert found.columns(1, 0).y.tolist() == [1, 2, 0]
    assert found.columns(1).accuracies().tolist() == [1]
    assert found.scores is not None
    assert found.scores.argmax(1).tolist() == found.likeliest.tolist()


def test_more_classes_than_two_bytes_can_name() -> None:
    n = 70_000
    logits, y = torch.zeros(1, n), torch.tensor([69_999])
    logits[0, 69_999] = 1
    found = unpacked(packed(logits, y, torch.ones(1, n, dtype=torch.bool), [1]), ["0"], range(n))
    assert (found.y.item(), found.likeliest.item(), found.credit.item()) == (69_999, 69_999, 1)


def test_rows_are_read_when_asked_for_and_what_is_not_kept_is_said() -> None:
    read: list[int] = []

    def load(row: int) -> Predicted:
        read.append(row)
        y = np.array([row])
        return Predicted(y, y[:, None], np.ones(1), np.array([1]), 9)

    found = Predictions([True, False, True], load, ["a"], ["a"])
    assert (len(found), found.rows, read) == (3, (0, 2), [])
    assert (found[-1].y.item(), found[2].y.item(), found[0].y.item()) == (2, 2, 0)
    assert read == [2, 0]
    for row in (1, 3, -4):
        with pytest.raises(BadInput, match=rf"predictions\[{row}\]: there are 3 rows, .* of 0, 2;"):
            found[row]


def test_the_bytes_of_a_row() -> None:
    assert row_bytes(100, 10, False) == 100 * 2 * (1 + 5)
    assert row_bytes(100, 3, True) == 100 * 2 * (1 + 3 + 3)
