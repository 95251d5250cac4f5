"""Optimizers without torch's compiler: no import, and the same steps bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

import cl_platform as clp
from cl_platform.config.training import Optimizer
from cl_platform.engine.machine import uncompiled
from cl_platform.engine.machine.uncompiled import MARK, step_without_compiler
from cl_platform.engine.optimization import OPTIMIZERS, build_optimizer

SMALL = {"stream": {"name": "blobs", "experiences": 2, "samples_per_class": 20}, "out": None}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_run_does_not_import_the_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    schedule = {"name": "CosineAnnealingLR", "warmup": 0.1}
    clp.run(**SMALL, optimizer={"name": name, "lr": 0.01}, schedule=schedule, clip_norm=1.0)


def trained(optimizer: Any, weights: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for p in weights:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach().clone() for p in weights]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_torchs_own_steps(name: str) -> None:
    torch.manual_seed(1)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    built = build_optimizer(ours, Optimizer(name=name, lr=0.1))
    plain = OPTIMIZERS[name](theirs.parameters(), lr=0.1)
    for mine, other in zip(
        trained(built, [*ours.parameters()]), trained(plain, [*theirs.parameters()]), strict=True
    ):
        assert torch.equal(mine, other)


def test_hooks_are_called_around_a_step() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    step_without_compiler(optimizer)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(weight.item()))
    optimizer.register_step_post_hook(lambda *_: seen.append(weight.item()))
    weight.grad = torch.ones(1)
    optimizer.step()
    assert seen == [0.0, -1.0]
    assert torch.is_grad_enabled()


def test_from_its_import_on_torch_exempts_functions_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain() -> str:
        return "as it is"

    def exempting(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[[], str]:
        return lambda: f"exempted, {function()}"

    method = _disable_dynamo(plain)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    setattr(plain, MARK, uncompiled._straight(method, plain))
    assert method() == "as it is"
    compiler = ModuleType("torch._dynamo")
    compiler.disable = exempting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch._dynamo", compiler)
    monkeypatch.setattr(torch, "_dynamo", compiler, raising=False)
    assert method() == "exempted, as it is"
