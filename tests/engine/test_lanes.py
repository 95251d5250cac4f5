"""Lanes: what is trained side by side is what is trained one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_platform import Experience
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.core.wrapper import Wrapper
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.choice import refusal, unfit
from cl_platform.engine.lanes.logits import shared_logits
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.planner import Planner
from cl_platform.errors import RunFailed
from cl_platform.models.mlp import MLP
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from tests.engine.test_contract import NEEDS

HERE = __name__
# Rows of 64 bytes or a multiple, so that the bits of products do not depend on where they lie.
STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 16, "dimensions": 63}
BASE = {"stream": STREAM, "strategy": "er", "model": {"name": "mlp", "hidden": [16]}}
SEEDS = ({"seed": 0}, {"seed": 1}, {"seed": 2})
PLANNER = Planner()
LANES = (
    "cumulative",
    "er",
    "finetune",
    "joint",
    "scheduled-replay",
    "shrink-and-perturb",
)  # all others say why they have none


def folds(
    changes: Sequence[dict[str, Any]], store: Path | None = None, **settings: Any
) -> list[Fold]:
    configs = [parse_config({**BASE, **settings, **change}) for change in changes]
    return [Fold(PLANNER(config), StateStore(store), Trackers()) for config in configs]


def compare(
    changes: Sequence[dict[str, Any]] = SEEDS, steps: int | None = None, **settings: Any
) -> list[str]:
    """Hold lanes to separate runs; return why they took steps of their own, if so."""
    reasons: list[str] = []
    lanes, separate = folds(changes, **settings), folds(changes, **settings)
    failed = run_lanes(lanes, [steps] * len(lanes), lambda k, why: reasons.append(why))
    assert failed == [None] * len(lanes)
    for lane, fold in zip(lanes, separate, strict=True):
        fold.run(steps)
        assert not differing(lane.state.strategy, fold.state.strategy)
        assert not differing(lane.state.optimizer, fold.state.optimizer)
        for one, other in zip(lane.records, fold.records, strict=True):
            assert (one.rows, one.anytime) == (other.rows, other.anytime)
            assert one.calibration == other.calibration
            assert one.cost.get("steps") == other.cost.get("steps")
    return reasons


def differing(a: Any, b: Any) -> list[str]:
    """Return the names under which two nested states differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [f"{name} {found}" for name in a for found in differing(a[name], b[name])]
    same = torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
    return [] if same else [f"{a!r:.60} is not {b!r:.60}"]


@pytest.mark.parametrize("name", sorted({*plugins("strategy")} - {"avalanche"}))
def test_every_strategy_has_lanes_or_says_why_not(name: str) -> None:
    scenario = "task" if load("strategy", name).needs_task is True else "class"
    settings = {"strategy": name, **NEEDS.get(name, {}), "stream": {**STREAM, "scenario": scenario}}
    if name in LANES:
        assert not compare(SEEDS[:2], 2, **settings)
        return
    config = parse_config({**BASE, **settings})
    plan = PLANNER(config)
    assert unfit(plan, plan.make_strategy())


ADAM = {"name": "adam", "lr": 0.01, "reset": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "moments that go on": {"optimizer": ADAM},
    "momentum": {"optimizer": {"momentum": 0.9, "nesterov": True}, "epochs": 2},
    "an optimizer whose steps are not stacked": {"optimizer": {"name": "rprop"}},
    "clipped": {"clip_norm": 0.1, "clip_value": 0.05},
    "a schedule": {"schedule": {"name": "onecyclelr", "max_lr": 0.1, "interval": "step"}},
    "a wrapper": {"strategy": {"name": f"{HERE}:Passing", "inner": "er"}},
    "early stopping": {
        "stream": {"name": "split-digits", "samples": 60, "experiences": 2, "validation": 0.3},
        "optimizer": {"name": "adam", "lr": 0.03, "reset": False},
        "epochs": 6,
        "early_stopping": {"patience": 1, "metric": "loss"},
    },
    "three layers": {"model": {"name": "mlp", "hidden": [32, 16]}, "batch_size": 16},
    "measured in between": {"evaluate_every": 2},
    "balanced": {"strategy": {"name": "er", "memory": "balanced", "memory_size": 20}},
    "classes seen": {"loss_classes": "seen", "permute_labels": True},
    "lists": {"epochs": [2, 1], "optimizer": {"lr": [0.1, 0.02]}},
    "tasks": {"stream": {**STREAM, "scenario": "task"}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_run_hold_in_its_lanes(name: str) -> None:
    assert {*compare(**SETTINGS[name])} <= {"there is one"}


def test_lanes_may_differ_in_order_and_numbers() -> None:
    changes = [
        {"curriculum": {"name": "random"}, "optimizer": {"lr": 0.01, "momentum": 0.5}},
        {"seed": 4, "curriculum": {"name": "random"}, "optimizer": {"lr": 0.005, "momentum": 0.9}},
        {"seed": 3, "strategy": {"name": "er", "memory_size": 20}},
    ]
    assert not compare(changes, loss_classes="seen")


def test_what_does_not_fit_is_trained_apart() -> None:
    assert {*compare(SEEDS, ema=0.9)} == {"ema is set"}
    assert {*compare(SEEDS, accumulate=2)} == {"accumulate is set"}
    assert {*compare(SEEDS, model=f"{HERE}:Normed")} == {"Normed has weights beside linear layers"}
    sizes = [{"model": {"name": "mlp", "hidden": [n]}} for n in (8, 9)]
    assert {*compare(sizes)} == {"their models have other shapes"}
    other_bits = "their gradients have other bits than separate ones"
    assert {*compare(SEEDS, model=f"{HERE}:Dropping")} == {other_bits}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, None),
        ({"model": {"name": "mlp", "hidden": [600]}, "batch_size": 99}, None),
        ({"model": {"name": "mlp", "hidden": [600, 600]}}, "models of 402000 weights"),
        ({"model": f"{HERE}:Normed"}, "beside linear layers"),
        ({"strategy": "ewc"}, "EWC has its own loss"),
    ],
)
def test_lanes_are_chosen_by_counted_weights(settings: dict[str, Any], why: str | None) -> None:
    found = refusal(PLANNER(parse_config({**BASE, **settings})), gaining=True)
    assert found is None if why is None else found and why in found


def test_where_the_sizes_of_batches_differ_each_lane_steps_alone() -> None:
    reasons = compare([{"stream": {**STREAM, "samples_per_class": n}} for n in (16, 24)])
    assert {*reasons} == {"their batches have other sizes", "there is one"}


class Passing(Wrapper):
    """A wrapper that changes nothing."""


class Normed(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(nn.LayerNorm(input_shape[0]), nn.Linear(input_shape[0], n_classes))


class Dropping(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(nn.Dropout(), nn.Linear(input_shape[0], n_classes))


class Diverging(Finetune):
    """Its weights are not numbers in the second experience of the first seed."""

    def begin_experience(self, experience: Experience) -> None:
        if self.index == 1 and self.info.rng.seed == 0:
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.nan)


def test_a_lane_that_fails_leaves_the_others_alone() -> None:
    settings: dict[str, Any] = {"strategy": f"{HERE}:Diverging"}
    lanes, separate = folds(SEEDS, **settings), folds(SEEDS, **settings)
    failed = run_lanes(lanes)
    with pytest.raises(RunFailed) as alone:
        separate[0].run()
    assert str(failed[0]) == str(alone.value)
    assert failed[1:] == [None, None]
    for lane, fold in zip(lanes[1:], separate[1:], strict=True):
        fold.run()
        assert not differing(lane.state.strategy, fold.state.strategy)


def test_logits_of_all_lanes_are_computed_together() -> None:
    models = [MLP((64,), 8, hidden=[64]).eval() for _ in range(3)]
    x = torch.randn(128, 64)
    alone = [model(x) for model in models]
    with shared_logits(models, x, Counter()):
        assert all("forward" in vars(model) for model in models)
        assert all(torch.equal(m(x), found) for m, found in zip(models, alone, strict=True))
    assert not any("forward" in vars(model) for model in models)


def test_lanes_begin_where_states_are_stored(tmp_path: Path) -> None:
    first = folds(SEEDS, store=tmp_path)
    assert run_lanes(first, [1, 2, 1]) == [None] * 3
    again = folds(SEEDS, store=tmp_path)
    assert run_lanes(again) == [None] * 3
    assert [fold.trained for fold in again] == [2, 1, 2]
    for lane, fold in zip(again, folds(SEEDS), strict=True):
        fold.run()
        assert not differing(lane.state.strategy, fold.state.strategy)


def test_a_state_holds_its_own_lane_only(tmp_path: Path) -> None:
    assert run_lanes(folds(SEEDS, store=tmp_path / "lanes")) == [None] * 3
    (fold,) = folds(SEEDS[:1], store=tmp_path / "alone")
    fold.run()
    sizes = {f.stat().st_size // 2**10 for f in tmp_path.rglob("*.pt")}
    assert max(sizes) - min(sizes) <= 1
