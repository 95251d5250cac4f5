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
from cl_platform.engine.optimization import (
    OPTIMIZERS,
    build_optimizer,
    optimizer_state,
    restore_optimizer,
)

SMALL = {"stream": {"name": "blobs", "experiences": 2, "samples_per_class": 20}, "out": None}
FUSED: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {"weight_decay": 0.1},
    "sgd": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}


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
    plainly = {"fused": False} if name in FUSED else {}
    built = build_optimizer(ours, Optimizer(name=name, lr=0.1, **plainly))
    plain = OPTIMIZERS[name](theirs.parameters(), lr=0.1)
    for mine, other in zip(
        trained(built, [*ours.parameters()]), trained(plain, [*theirs.parameters()]), strict=True
    ):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(("name", "given"), FUSED.items())
def test_fused_steps_are_torchs_own_up_to_rounding(name: str, given: dict[str, Any]) -> None:
    torch.manual_seed(1)
    layers = [nn.Linear(30, 20) for _ in range(3)]
    for other in layers[1:]:
        other.load_state_dict(layers[0].state_dict())
    mine = trained(
        build_optimizer(layers[0], Optimizer(name=name, lr=0.1, **given)), [*layers[0].parameters()]
    )
    fused = OPTIMIZERS[name](layers[1].parameters(), lr=0.1, fused=True, **given)
    plain = OPTIMIZERS[name](layers[2].parameters(), lr=0.1, fused=False, **given)
    for own, other in zip(mine, trained(fused, [*layers[1].parameters()]), strict=True):
        assert torch.equal(own, other)
    for own, other in zip(mine, trained(plain, [*layers[2].parameters()]), strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "given"), [*FUSED.items(), ("sgd", {})])
def test_a_parameter_may_get_its_first_gradient_late(name: str, given: dict[str, Any]) -> None:
    """Of several heads, for instance. torch's fused SGD fails where some momentum has not begun."""
    weights = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    module = nn.ParameterList(weights)
    optimizer = build_optimizer(module, Optimizer(name=name, lr=0.1, **given))
    assert optimizer is not None
    others = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    plain = OPTIMIZERS[name](others, lr=0.1, fused=False, **given)
    for step in range(4):
        for i, both in enumerate(zip(weights, others, strict=True)):
            for p in both:
                p.grad = torch.full((3,), float(i + step)) if step >= i else None
        if step == 2:  # as in a run that goes on from a state
            restore_optimizer(module, optimizer, optimizer_state(module, optimizer))
        optimizer.step()
        plain.step()
    for own, other in zip(weights, others, strict=True):
        assert torch.allclose(own, other)
        assert not torch.equal(own, torch.ones(3))


def test_momentum_with_dampening_begins_as_torch_lets_it() -> None:
    given: dict[str, Any] = {"momentum": 0.9, "dampening": 0.5}
    for fused in ({}, {"fused": True}):
        ours, theirs = (nn.Parameter(torch.ones(3)) for _ in range(2))
        config = Optimizer(name="sgd", lr=0.1, **given, **fused)
        built = build_optimizer(nn.ParameterList([ours]), config)
        (mine,) = trained(built, [ours])
        (other,) = trained(torch.optim.SGD([theirs], lr=0.1, **given, **fused), [theirs])
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
