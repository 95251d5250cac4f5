"""Lanes: what is trained side by side is what is trained one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_platform import Batch, Experience
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import Way, run_lanes
from cl_platform.engine.planner import Planner
from cl_platform.errors import RunFailed
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from tests.engine.test_contract import NEEDS

HERE = __name__
STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 16}
# Rows of 64 numbers, so that every batch is aligned in memory.
DIGITS = {"name": "blobs", "experiences": 3, "samples_per_class": 16, "dimensions": 63}
BASE = {"stream": DIGITS, "strategy": "er", "model": {"name": "mlp", "hidden": [16]}}
SEEDS = ({"seed": 0}, {"seed": 1}, {"seed": 2})
OWN_STEP, DRAWS = "{} has a training step of its own", "the loss draws random numbers"
# Why some strategies have no lanes; all others have.
ALONE = {
    **dict.fromkeys(("a-gem", "gem", "der", "der++", "gdumb", "tag", "refresh"), OWN_STEP),
    **dict.fromkeys(("ncm", "slda", "ranpac"), OWN_STEP),
    "avalanche": "{} has a loop of its own",
    **dict.fromkeys(("mir", "gss"), DRAWS),
}


def folds(
    changes: Sequence[dict[str, Any]], store: Path | None = None, **settings: Any
) -> list[Fold]:
    planner = Planner()
    configs = [parse_config({**BASE, **settings, **change}) for change in changes]
    return [Fold(planner(config), StateStore(store), Trackers()) for config in configs]


def compare(
    changes: Sequence[dict[str, Any]] = SEEDS,
    steps: int | None = None,
    way: Way | None = None,
    close: float = 0.0,
    **settings: Any,
) -> list[str]:
    """Hold lanes to separate runs; return why they took steps of their own, if so.

    Args:
        close: the largest difference of numbers, relative to the length of their tensor; 0 for the
            same bits.
    """
    reasons: list[str] = []
    lanes, separate = folds(changes, **settings), folds(changes, **settings)
    failed = run_lanes(lanes, [steps] * len(lanes), way, lambda k, why: reasons.append(why))
    assert failed == [None] * len(lanes)
    for lane, fold in zip(lanes, separate, strict=True):
        fold.run(steps)
        assert not differing(lane.state.strategy, fold.state.strategy, close)
        assert not differing(lane.state.optimizer, fold.state.optimizer, close)
        for one, other in zip(lane.records, fold.records, strict=True):
            assert close or (one.rows, one.anytime) == (other.rows, other.anytime)
            assert one.cost.get("steps") == other.cost.get("steps")
    return reasons


def differing(a: Any, b: Any, close: float = 0.0) -> list[str]:
    """Return the names under which two nested states differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [f"{name} {found}" for name in a for found in differing(a[name], b[name], close)]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        apart = (a.double() - b.double()).norm()
        same = torch.equal(a, b) or bool(apart <= close * b.double().norm())
    else:
        same = a == b
    return [] if same else [f"{a!r:.60} is not {b!r:.60}"]


@pytest.mark.parametrize("name", sorted(plugins("strategy")))
def test_every_strategy_has_lanes_or_says_why_not(name: str) -> None:
    scenario = "task" if load("strategy", name).needs_task is True else "class"
    settings = {"strategy": name, **NEEDS.get(name, {}), "stream": {**STREAM, "scenario": scenario}}
    reasons = compare(SEEDS[:2], 2, Way(exact=False), 1e-4, **settings)
    kind = load("strategy", name).__name__
    assert {*reasons} == ({ALONE[name].format(kind)} if name in ALONE else set())


@pytest.mark.parametrize("name", ["finetune", "er", "er-ace", "ewc", "si", "lwf", "mas"])
def test_lanes_have_the_bits_of_separate_runs(name: str) -> None:
    assert not compare(strategy=name)


ADAM = {"name": "adam", "lr": 0.01, "reset": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "moments that go on": {"optimizer": ADAM},
    "clipped": {"clip_norm": 0.1, "clip_value": 0.05},
    "a schedule": {"schedule": {"name": "onecyclelr", "max_lr": 0.1, "interval": "step"}},
    "accumulated": {"accumulate": 2, "epochs": 2},
    "measured in between": {"evaluate_every": 2},
    "balanced": {"strategy": {"name": "er", "memory": "balanced", "memory_size": 20}},
    "classes seen": {"loss_classes": "seen", "permute_labels": True},
    "tasks": {"stream": {**DIGITS, "scenario": "task"}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_run_hold_in_its_lanes(name: str) -> None:
    assert not compare(**SETTINGS[name])


def test_lanes_may_differ_in_order_and_numbers() -> None:
    changes = [
        {"curriculum": {"name": "random"}, "optimizer": {"lr": 0.01, "momentum": 0.5}},
        {"seed": 4, "curriculum": {"name": "random"}, "optimizer": {"lr": 0.005, "momentum": 0.9}},
        {"seed": 3, "strategy": {"name": "ewc", "strength": 0.1}},
    ]
    strategy = {"name": "ewc", "strength": 0.5}
    assert not compare(changes, strategy=strategy, loss_classes="seen")


def test_what_does_not_fit_is_trained_apart() -> None:
    sizes = [{"strategy": {"name": "er", "memory_size": n}} for n in (10, 20)]
    assert {*compare(sizes)} == {"'x' has other shapes"}
    assert {*compare(SEEDS, ema=0.9)} == {"ema is set"}
    dropping = compare(SEEDS, model=f"{HERE}:Dropping")
    assert {*dropping} == {DRAWS}


class Dropping(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(nn.Dropout(), nn.Linear(input_shape[0], n_classes))


class Diverging(Finetune):
    """Its loss is not a number in the second experience of the first seed."""

    def begin_experience(self, experience: Experience) -> None:
        bad = self.index == 1 and self.info.rng.seed == 0
        self.factor = torch.tensor(float("nan") if bad else 1.0)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * self.factor


def test_a_lane_that_fails_leaves_the_others_alone() -> None:
    settings = {"strategy": f"{HERE}:Diverging"}
    lanes, separate = folds(SEEDS, **settings), folds(SEEDS, **settings)
    failed = run_lanes(lanes)
    with pytest.raises(RunFailed) as alone:
        separate[0].run()
    assert str(failed[0]) == str(alone.value)
    assert failed[1:] == [None, None]
    for lane, fold in zip(lanes[1:], separate[1:], strict=True):
        fold.run()
        assert not differing(lane.state.strategy, fold.state.strategy)


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


def test_a_calibration_changes_nothing() -> None:
    assert {*compare(way=Way(calibrate=True), epochs=4)} <= {"separate steps are quicker"}


def test_close_lanes_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exact"):
        run_lanes(folds(SEEDS, store=tmp_path), way=Way(exact=False))
