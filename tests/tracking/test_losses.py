"""The curve of the loss is by step, however often the losses were looked at."""

from __future__ import annotations

from typing import Any

import pytest

from cl_platform.tracking.losses import LossCurve

LOSSES = [float(i) for i in range(1, 11)]  # of ten batches in two epochs


def look(done: int, losses: list[float], before: int = 0) -> dict[str, Any]:
    return {
        "done": done,
        "losses": losses,
        "rates": [0.1] * len(losses),
        "norms": [],
        "batches": [5, 5],
        "sizes": [23, 23],
        "batch_size": 5,
        "before": {"steps": before, "samples": 10 * before},
    }


@pytest.mark.parametrize("looks", [[10], [1] * 10, [3, 4, 3], [9, 1]])
def test_points_do_not_depend_on_when_losses_are_looked_at(looks: list[int]) -> None:
    curve, done, found = LossCurve(4), 0, []
    for n in looks:
        done += n
        found += curve.points(look(done, LOSSES[done - n : done]))
    found += curve.rest()
    assert [(step, values["train/loss"]) for step, values in found] == [
        (4, 2.5),
        (8, 6.5),
        (10, 9.5),
    ]
    assert [values["train/epoch"] for _, values in found] == [1, 2, 2]
    assert [values["train/samples"] for _, values in found] == [20, 38, 46]
    assert not [*curve.rest()]


def test_steps_go_on_where_earlier_experiences_ended() -> None:
    ((step, values),) = LossCurve(4).points(look(2, [1.0, 3.0], before=6))
    assert (step, values["train/loss"], values["train/samples"]) == (8, 2.0, 70)


def test_norms_are_means_too() -> None:
    ((_, values),) = LossCurve(2).points({**look(2, [1.0, 3.0]), "norms": [4.0, 6.0]})
    assert values["train/gradient_norm"] == 5.0
