"""Fast and slow weights: who moves when, and how well slow weights learn from few shots."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.fast_slow import nearest_mean

DIGITS = {"name": "split-digits", "samples": 40}
SETTINGS: dict[str, Any] = {
    "model": {"name": "cnn", "width": 4},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
}


def fold_of(steps: int = 2, name: str = "fast-slow", stream: Any = DIGITS, **given: Any) -> Fold:
    settings = {k: given.pop(k) for k in ("model",) if k in given}
    data = {"stream": stream, "strategy": {"name": name, **given}, **SETTINGS, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    return fold


def weights(fold: Fold, which: str) -> dict[str, Tensor]:
    strategy = fold.strategy
    model = strategy.slow.model if which == "slow" else strategy.model
    return copy.deepcopy(model.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_at_rate_0_slow_weights_never_move() -> None:
    fold = fold_of(0, rate=0.0)
    untrained = weights(fold, "slow")
    assert same(untrained, weights(fold, "fast"))
    for _ in range(2):
        fold.train()
        assert same(weights(fold, "slow"), untrained)
        assert not same(weights(fold, "fast"), untrained)


def test_at_rate_1_without_a_penalty_it_is_fine_tuning_to_the_bit() -> None:
    ours, plain = fold_of(3, rate=1.0, strength=0.0), fold_of(3, name="finetune")
    assert same(weights(ours, "fast"), plain.strategy.model.state_dict())
    assert same(weights(ours, "slow"), plain.strategy.model.state_dict())


def test_at_rate_1_it_is_online_ewc_to_the_bit() -> None:
    ours = fold_of(3, rate=1.0, strength=20.0)
    ewc = fold_of(3, name="ewc", mode="online", strength=20.0)
    assert same(weights(ours, "fast"), ewc.strategy.model.state_dict())
    assert same(ours.strategy.penalty.state_dict(), ewc.strategy.penalty.state_dict())


@pytest.mark.parametrize("schedule", ["fixed", "harmonic"])
def test_slow_weights_take_a_step_of_reptile(schedule: str) -> None:
    fold = fold_of(1, rate=0.5, schedule=schedule)
    before = weights(fold, "slow")
    fold.train()
    rate = 0.5 if schedule == "fixed" else 0.25  # the second experience
    after, fast = weights(fold, "slow"), weights(fold, "fast")
    for name, value in after.items():
        expected = before[name] + rate * (fast[name] - before[name])
        if value.is_floating_point():
            assert torch.allclose(value, expected, atol=1e-6), name
        else:
            assert torch.equal(value, fast[name]), name
    assert "body.1.running_mean" in after  # a step of the statistics as well


def test_fast_weights_begin_with_the_predictions_of_slow_ones_to_the_bit() -> None:
    fold = fold_of(2)
    strategy = fold.strategy.eval()
    x = strategy.info.preprocess(fold.plan.stream[0].test.x)
    slow = strategy.slow.model(x)
    assert not torch.equal(strategy(x), slow)
    fold.rng.restart(3)
    strategy.begin_experience(fold.shown(fold.plan.steps[2].experience))
    assert torch.equal(strategy.eval()(x), slow)


def test_the_penalty_holds_fast_weights_at_where_they_were_and_not_at_slow_ones() -> None:
    fold = fold_of(1)
    fast = weights(fold, "fast")
    anchor = fold.strategy.penalty.anchor
    assert torch.equal(anchor, torch.cat([fast[n].flatten() for n, _ in named(fold)]))


def named(fold: Fold) -> list[tuple[str, Any]]:
    return [*fold.strategy.model.named_parameters()]


# Few shots


def test_episodes_are_classified_by_the_nearest_mean() -> None:
    features = torch.tensor([[0.0], [2.0], [9.0], [1.2], [10.0], [12.0], [11.0]])
    rows = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6])]  # means 1 and 11
    assert nearest_mean(features, rows, 2).item() == pytest.approx(2 / 3)  # 9 is nearer to 11


def test_few_shots_are_reported_before_classes_are_learned_and_reproducibly() -> None:
    given = {"stream": {**DIGITS, "experiences": [4, 3, 3], "samples": 80}, "episodes": 5}
    found = []
    for _ in range(2):
        fold = fold_of(0, **given)
        found.append([])
        for _ in range(3):
            fold.train()
            found[-1].append(fold.strategy.diagnostics())
    assert found[0] == found[1]
    first, second, third = found[0]
    assert first["few_shot_slow"] == first["few_shot_fast"]  # neither has moved
    assert second["few_shot_slow"] != second["few_shot_fast"]
    assert all(0 < value <= 1 for value in third.values())


def test_what_it_reports_changes_no_bit() -> None:
    with_it, without = fold_of(2), fold_of(2, episodes=0)
    assert same(with_it.strategy.state_dict(), without.strategy.state_dict())
    assert without.strategy.diagnostics() == {}


def test_known_classes_in_a_new_domain_and_single_shots_make_no_episode() -> None:
    domains = {**DIGITS, "scenario": "domain"}
    assert fold_of(1, stream=domains, model="mlp").strategy.diagnostics() == {}
    single = {"name": "split-digits", "samples": 2}
    assert fold_of(1, stream=single, model="mlp").strategy.diagnostics() == {}
