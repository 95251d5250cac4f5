"""Compiled losses: the same run, whatever the process did before; refusals are told."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.registry import load
from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.machine import compiled
from cl_platform.engine.machine.compiled import compiling, earns
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.er import ER

SMALL = {
    "stream": {"name": "blobs", "experiences": 2, "samples_per_class": 11},
    "model": {"name": "mlp", "hidden": [8]},
}


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are traced as always, and then carried out by torch."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")


@pytest.mark.slow
def test_a_compiled_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """What was compiled for the experiences before must not matter."""
    plan = make_plan(parse_config({**SMALL, "compile": True}))
    result = execute(plan, tmp_path)
    assert result.cost["compiled_steps"] == result.cost["steps"] > 0
    plain = clp.run(out=None, **SMALL)
    assert plain.metrics == pytest.approx(result.metrics)
    assert "compiled_steps" not in plain.cost
    whole = StateStore(tmp_path / "states").load(plan.keys[-1])
    store = StateStore(tmp_path / "states")
    fold = Fold(plan, store, Trackers())
    assert fold.load(len(plan.keys) - 2)
    fold.train()
    assert whole is not None
    for name, value in whole.strategy.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, fold.state.strategy[name]), name


class Looking(ER):
    """Reads a number off the device in its loss, which no graph holds."""

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss if loss.item() > 0 else -loss


def test_what_cannot_be_compiled_is_trained_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    result = clp.run(strategy=Looking, compile=True, out=None, **SMALL)
    assert result.cost["compiled_steps"] == 0
    assert capsys.readouterr().err.count("steps were not compiled (") == 1
    assert clp.run(strategy=Looking, out=None, **SMALL).metrics == result.metrics


def test_a_loss_is_compiled_while_an_experience_is_learned() -> None:
    fold = Fold(
        make_plan(parse_config({"strategy": "finetune", **SMALL})), StateStore(None), Trackers()
    )
    batch = Batch(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), None, torch.zeros(4, 2))
    batch = replace(batch, x=torch.randn(4, *fold.plan.stream.input_shape))
    plain = fold.strategy.loss(batch)
    with compiling(fold.strategy, True) as loss:
        assert torch.equal(fold.strategy.loss(batch), plain)
    assert loss is not None
    assert (loss.steps, loss.refusal) == (1, "")
    assert "loss" not in vars(fold.strategy)
    with compiling(fold.strategy, False) as loss:
        assert loss is None
    wrapper = load("strategy", "refresh")(inner=fold.strategy)
    with compiling(wrapper, True) as loss:
        assert torch.equal(wrapper.loss(batch), plain)
    assert loss is not None
    assert loss.steps == 1


def test_it_earns_its_warm_up_by_work_of_models_that_reuse_their_weights() -> None:
    assert earns(10**9, 10**6, 10**4)
    assert not earns(10**9, 10**6, 10)  # too few steps
    assert not earns(10**9, 10**9, 10**4)  # a multilayer perceptron


@pytest.mark.parametrize(("most", "compiles"), [(0, True), (10**18, False)])
def test_auto_is_decided_by_what_an_experience_does(
    most: int, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "EARNS", most)
    asked: list[bool] = []
    monkeypatch.setattr(
        "cl_platform.engine.fold.compiling",
        lambda strategy, wanted: asked.append(wanted) or nullcontext(),
    )
    stream = {"name": "split-digits", "experiences": 2}
    result = clp.run(stream, "finetune", model="cnn", compile="auto", batch_size=500, out=None)
    assert asked == [compiles] * 2
    assert "compiled_steps" not in result.cost


def test_flops_of_compiled_steps_cannot_be_counted() -> None:
    with pytest.raises(clp.ClpError, match="count_flops"):
        make_plan(parse_config({**SMALL, "compile": True, "count_flops": True}))


@pytest.mark.slow
def test_real_code_gives_nearly_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    first, second = (clp.run(compile=True, out=None, **SMALL) for _ in range(2))
    assert first.cost["compiled_steps"] == first.cost["steps"]
    assert first.metrics == second.metrics
    plain = clp.run(out=None, **SMALL)
    assert first.metrics == pytest.approx(plain.metrics, abs=0.05)


@pytest.mark.slow
def test_without_a_compiler_it_is_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    result = clp.run(compile=True, out=None, **SMALL)
    assert result.cost["compiled_steps"] == 0
    assert "steps were not compiled (" in capsys.readouterr().err
