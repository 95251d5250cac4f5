"""Streams whose outcome is known: who forgets, who does not."""

from __future__ import annotations

import pytest

import cl_platform as clp

BLOBS = {"name": "blobs", "dimensions": 16}


def outcome(
    strategy: object, stream: object = BLOBS, epochs: int = 5, **settings: object
) -> clp.Result:
    return clp.run(stream, strategy, epochs=epochs, out=None, **settings)  # type: ignore[arg-type]


def test_finetuning_keeps_the_last_experience_only() -> None:
    result = outcome("finetune")
    assert result.metrics["average_accuracy"] == pytest.approx(0.2, abs=0.02)
    assert result.metrics["forgetting"] > 0.95
    assert result.matrix[5, 4] > 0.98


@pytest.mark.system
@pytest.mark.parametrize(
    "strategy",
    [
        "joint",
        "cumulative",
        {"name": "er", "memory_size": 1000},
        {"name": "er", "memory": "balanced"},
    ],
)
def test_methods_that_see_old_data_remember(strategy: object) -> None:
    assert outcome(strategy).metrics["average_accuracy"] > 0.98


def test_task_labels_save_finetuning() -> None:
    result = outcome("finetune", {**BLOBS, "scenario": "task"})
    assert result.metrics["average_accuracy"] > 0.98
    assert outcome("finetune").metrics["average_accuracy"] < 0.3


def test_joint_does_not_depend_on_the_order() -> None:
    first, second = outcome("joint"), outcome("joint", curriculum="reverse")
    assert first.matrix.values[-1].tolist() == second.matrix.values[-1][::-1].tolist()
    assert first.metrics["forgetting"] == 0
    assert first.cost["steps"] == second.cost["steps"]


def test_the_untrained_row_is_at_chance() -> None:
    results = [outcome("finetune", epochs=1, seed=s) for s in range(8)]
    values = [result.matrices["task"].values[0].mean() for result in results]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.15)


@pytest.mark.system
def test_domains_that_are_learned_together_stay() -> None:
    stream = {"name": "rotated-digits", "experiences": 3, "largest_angle": 60.0}
    first = outcome("finetune", stream)
    second = outcome({"name": "er", "memory_size": 500}, stream)
    assert second.metrics["average_accuracy"] > max(0.9, first.metrics["average_accuracy"])
    assert (first.matrices["seen"].values[1:] == first.matrices["all"].values[1:]).all()
    assert first.matrix is first.matrices["all"]
