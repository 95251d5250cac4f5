"""A run fails where logits, parameters or inputs are not finite, and says which and where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.errors import BadInput, RunFailed
from strategies.baselines import Finetune

GOOD = Samples.of(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), range(40))
GOOD = replace(GOOD, y=torch.arange(40) % 4)


class Spoils:
    """Makes some inputs nan that are stored as numbers."""

    identity = "spoils"

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.masked_fill(raw[:, :1] > 1, torch.nan)


def stream(train: Samples = GOOD, test: Samples = GOOD) -> Stream:
    return class_incremental("mine", [[0, 1], [2, 3]], "abcd", train, test)


def run(given: Any, strategy: Any = "finetune", **settings: Any) -> clp.Result:
    return clp.run(given, strategy, out=None, model={"name": "mlp", "hidden": [8]}, **settings)


def nan_inputs() -> Samples:
    x = GOOD.x
    x.view(-1)[torch.tensor([0, 30, 57, 99, 140])] = torch.nan
    return Samples.of(x, GOOD.y)


@pytest.mark.parametrize("split", ["train", "test"])
def test_inputs_are_looked_at_when_a_stream_is_made(split: str) -> None:
    with pytest.raises(
        BadInput, match=r"inputs of experience 'a b' hold nan or infinity"
    ) as caught:
        stream(**{split: nan_inputs()})
    assert "lr" not in str(caught.value)


@pytest.mark.parametrize("name", ["finetune", "ncm", "slda", "ranpac", "gdumb"])
def test_inputs_that_become_nan_fail_the_run_before_any_advice(name: str) -> None:
    bad = replace(GOOD, transform=Spoils())
    with pytest.raises(RunFailed, match="samples hold nan or infinity; look at the data") as caught:
        run(stream(bad, GOOD), name) if name == "finetune" else run(stream(bad, bad), name)
    assert "failed at experience" in str(caught.value)
    assert "lower lr" not in str(caught.value)


def test_own_training_that_diverges_fails_the_run() -> None:
    settings = {"strategy": {"name": "gdumb", "memory_size": 20}, "lr": 1000.0}
    with pytest.raises(
        RunFailed, match=r"experience 1 of 5, at its end: .* parameters are not f"
    ) as e:
        clp.run("split-digits", **settings, out=None)
    assert "lr=1000; lower lr" in str(e.value)


class Buffered(Finetune):
    """Divides by a buffer that is zero after the first experience."""

    def setup(self, info: Any) -> None:
        super().setup(info)
        self.scale = torch.nn.Buffer(torch.ones(()))

    def end_experience(self, experience: Experience) -> None:
        self.scale.zero_()

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return super().forward(x, task) * (self.scale / self.scale)


def test_logits_that_are_not_finite_name_the_experience_and_the_cause() -> None:
    with pytest.raises(
        RunFailed,
        match=r"failed at experience 1 of 2, evaluation: logits of 20 of 20 test samples of "
        r"experience 'a b' are nan or infinite though inputs and parameters are finite; look at",
    ):
        run(stream(), Buffered)


def test_a_standard_deviation_of_zero_is_refused() -> None:
    with pytest.raises(BadInput, match="give positive numbers"):
        Preprocess((0.0,), (0.0,))
