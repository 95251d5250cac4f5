"""How many threads a run computes with, and that the number is decided by what it does."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, Result
from cl_platform.config.process import process_restored, wait_asleep
from cl_platform.config.run_config import parse_config
from cl_platform.engine.machine import choices
from cl_platform.engine.planner import make_plan

SMALL = {"stream": {"name": "blobs", "experiences": 2, "samples_per_class": 20}, "out": None}
USED: list[int] = []  # threads, step by step


class Watching(clp.Strategy):
    def loss(self, batch: Batch) -> Tensor:
        USED.append(torch.get_num_threads())
        return super().loss(batch)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """This process has two, whatever the machine has."""
    USED.clear()
    with process_restored():
        torch.set_num_threads(2)
        yield


def test_a_small_model_runs_on_one_and_leaves_the_process_its_own() -> None:
    result = clp.run(strategy=Watching, **SMALL)
    assert {*USED} == {1}
    assert result.cost["threads"] == 1
    assert torch.get_num_threads() == 2


def test_much_work_in_a_step_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(parse_config({"stream": SMALL["stream"]}))
    ends = torch.Size(plan.stream.input_shape).numel() + plan.stream.n_classes
    monkeypatch.setattr(choices, "ENOUGH", plan.config.batch_size * 30 * ends)
    for hidden, n in ((29, 1), (30, 2)):
        USED.clear()
        model = {"name": "mlp", "hidden": [hidden]}
        assert clp.run(strategy=Watching, model=model, **SMALL).cost["threads"] == n
        assert {*USED} == {n}


def test_a_number_is_obeyed() -> None:
    assert clp.run(strategy=Watching, threads=3, **SMALL).cost["threads"] == 3
    assert {*USED} == {3}


class Dropping(nn.Sequential):
    """A model that draws random numbers and keeps running statistics."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        n = torch.Size(input_shape).numel()
        super().__init__(nn.Flatten(), nn.BatchNorm1d(n), nn.Dropout(0.5), nn.Linear(n, n_classes))


def test_the_decision_leaves_no_trace() -> None:
    def whole(n: int) -> Result:
        torch.set_num_threads(n)
        return clp.run(model=Dropping, **SMALL)

    one, two = whole(1), whole(2)
    assert (one.run_id, one.metrics) == (two.run_id, two.metrics)


def test_threads_wait_asleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
