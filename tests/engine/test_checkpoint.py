"""Checkpoints in the midst of an experience: what goes on from them ends with the same bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_platform import Batch, Experience, Strategy
from cl_platform.config.process import ENDING
from cl_platform.config.run_config import parse_config
from cl_platform.engine.contract import CHECKS
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ContractError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from tests.engine.test_options import EVERYTHING, assert_equal

DIGITS = {"name": "split-digits", "samples": 60, "experiences": 2, "validation": 0.3}
ONE_STEP = {k: v for k, v in EVERYTHING.items() if k != "accumulate"}
ONE_AVERAGE = {k: v for k, v in EVERYTHING.items() if k != "ema"}
REPLACING = {"name": "continual-backprop", "replacement_rate": 0.01, "maturity": 2}


class Interrupting(StateStore):
    """Writes a checkpoint after some of all steps, and ends the run by an interrupt."""

    def __init__(self, folder: Path, steps: tuple[int, ...], **options: Any) -> None:
        super().__init__(folder, checkpoint_minutes=0, **options)
        self.left = list(steps)
        self.steps = 0

    def save_checkpoint(self, key: str, content: dict[str, Any]) -> None:
        self.steps += 1
        if self.steps in self.left:
            super().save_checkpoint(key, content)
            self.left.remove(self.steps)
            raise KeyboardInterrupt


def fold_of(store: StateStore, **settings: Any) -> Fold:
    return Fold(make_plan(parse_config(settings)), store, Trackers())


def interrupted(store: Interrupting, **settings: Any) -> Fold:
    """Run to the end, with every interrupt in a fresh fold."""
    while store.left:
        with pytest.raises(KeyboardInterrupt):
            fold_of(store, **settings).run()
    fold = fold_of(store, **settings)
    fold.run()
    return fold


def assert_same_end(whole: Fold, resumed: Fold) -> None:
    for part in ("strategy", "optimizer", "average"):
        assert_equal(getattr(whole.state, part), getattr(resumed.state, part))
    for a, b in zip(whole.records, resumed.records, strict=True):
        assert (a.rows, a.anytime) == (b.rows, b.anytime)
        for name in ("steps", "samples", "epochs"):
            assert a.cost.get(name) == b.cost.get(name)


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        *((name, EVERYTHING) for name in ("er", "der++", "lwf", "ewc")),
        *((name, ONE_STEP) for name in ("si", "refresh", "mir")),
        (REPLACING, EVERYTHING),
        ({"name": "merged", "method": "dare", "start_from": "merged"}, ONE_AVERAGE),
        ("l2p", {**EVERYTHING, "model": "tiny-transformer"}),
        ("er", {"stream": {**DIGITS, "online": True}, "optimizer": {"momentum": 0.9}}),
        ("er", {**EVERYTHING, "pacing": "cyclical"}),
        ("lwf", {"epochs": 4, "pacing": {"name": "reweighted", "scores": "variability"}}),
        ("er", {"epochs": 3, "schedule": {"name": "StepLR", "step_size": 1, "warmup": 0.4}}),
    ],
)
def test_interrupted_in_mid_experience_it_ends_with_the_same_bits(
    strategy: str | dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    given = {"stream": DIGITS, "strategy": strategy, "evaluate_every": 3, **settings}
    whole = fold_of(StateStore(None), **given)
    whole.run()
    steps = whole.records[1].cost["steps"]
    # At the beginning, in the midst of an epoch, at its end, and twice in the next experience.
    stops = (1, int(steps) // 2 + 1, int(steps), int(steps) + 2, int(steps) + 3)
    store = Interrupting(tmp_path, stops)
    resumed = interrupted(store, **given)
    assert store.steps == steps + whole.records[2].cost["steps"], "no step is taken twice"
    assert_same_end(whole, resumed)
    assert not list(tmp_path.glob("*/*.checkpoint"))


SMALL = {"stream": {"name": "blobs", "experiences": 2}, "strategy": "er", "epochs": 2}


def test_other_settings_see_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fold_of(Interrupting(tmp_path, (5,)), **SMALL).run()
    folds = [fold_of(StateStore(folder), **{**SMALL, "seed": 1}) for folder in (tmp_path, None)]
    for fold in folds:
        fold.run()
    assert_same_end(*folds)
    assert len(list(tmp_path.glob("*/*.checkpoint"))) == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-2], lambda b: b"", lambda b: b[:99] + b"x" + b[100:]]
)
def test_a_corrupt_one_is_set_aside(
    damage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fold_of(Interrupting(tmp_path, (5,)), **SMALL).run()
    (file,) = tmp_path.glob("*/*.checkpoint")
    file.write_bytes(damage(file.read_bytes()))
    resumed, whole = (fold_of(StateStore(folder), **SMALL) for folder in (tmp_path, None))
    resumed.run()
    whole.run()
    assert_same_end(whole, resumed)
    assert f"{file.name} is corrupt" in capsys.readouterr().err
    assert not file.exists()
    assert file.with_name(f"{file.name}.corrupt").exists()


@pytest.mark.parametrize("keep", ["last", "branches", "none"])
def test_what_is_kept_of_states_changes_no_bit(keep: Any, tmp_path: Path) -> None:
    """With `branches` states that take no time are not kept: what led to the checkpoint is redone."""
    whole = fold_of(StateStore(None), **SMALL)
    whole.run()
    steps = int(whole.records[1].cost["steps"])
    store = Interrupting(tmp_path, () if keep == "none" else (steps + 3,), keep=keep)
    assert_same_end(whole, interrupted(store, **SMALL))
    assert (store.steps == 0) == (keep == "none")
    assert not list(tmp_path.glob("*/*.checkpoint"))


def test_short_experiences_write_none(tmp_path: Path) -> None:
    store = Interrupting(tmp_path, ())
    store.checkpoint_minutes = 1
    fold_of(store, **SMALL).run()
    assert store.steps == 0


class Told(Finetune):
    """Is told to end, as by SIGTERM, in the third step of an experience; once in a process."""

    told = False

    def training_step(self, batch: Batch) -> Tensor:
        self.step = getattr(self, "step", 0) + 1
        if self.step == 3 and not Told.told:
            Told.told = True
            assert ENDING.tell(), "training sees to it"
            assert not ENDING.tell(), "but not a second time"
        return super().training_step(batch)

    def end_experience(self, experience: Experience) -> None:
        assert not ENDING.attended


@pytest.fixture
def unended() -> Iterator[None]:
    """Nobody has told this process to end when the test is over."""
    yield
    ENDING.told = False


def test_a_process_that_is_told_to_end_saves_one(tmp_path: Path, unended: None) -> None:
    strategy = f"{__name__}:Told"
    plan = make_plan(parse_config({**SMALL, "strategy": strategy}))
    with pytest.raises(KeyboardInterrupt):
        execute(plan, tmp_path)
    assert len(list(tmp_path.glob("states/*/*.checkpoint"))) == 1
    ENDING.told = False
    assert not ENDING.tell(), "nobody trains"
    ENDING.told = False
    result = execute(plan, tmp_path)
    assert result.metrics == execute(plan, None).metrics
    assert math.isfinite(result.cost["train_seconds"])


class Counting(Strategy):
    """Weighs its losses by a counter that no checkpoint holds."""

    def begin_experience(self, experience: Experience) -> None:
        self.count = itertools.count(1)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / next(self.count)


def test_the_contract_finds_what_no_checkpoint_holds() -> None:
    check = CHECKS["resumes within an experience"]
    with pytest.raises(ContractError, match="interrupted between two steps and resumed"):
        check({"strategy": {"name": f"{__name__}:Counting"}})


class Loose(Finetune):
    """Keeps what changes from step to step in attributes and in a buffer that no state holds."""

    def setup(self, info: Any) -> None:
        super().setup(info)
        self.register_buffer("_mean", torch.zeros(()), persistent=False)

    def begin_experience(self, experience: Experience) -> None:
        self.seen: dict[str, Any] = {"losses": [torch.zeros(())], "n": 0}
        self.alias = self.seen["losses"][0]
        self._mean.zero_()

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (1 + self.alias + self._mean) / (1 + self.seen["n"])

    def after_step(self, batch: Batch) -> None:
        self.seen["n"] += 1
        self.seen["losses"][0] += 0.1  # which `alias` is
        self._mean += 0.01


def test_attributes_that_change_are_in_it() -> None:
    CHECKS["resumes within an experience"]({"strategy": {"name": f"{__name__}:Loose"}})
