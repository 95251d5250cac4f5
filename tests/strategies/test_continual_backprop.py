"""Continual backprop: which units start anew, how, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.continual_backprop import ContinualBackprop, Units
from tests.strategies.test_merged import assert_equal

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
DIGITS = {"name": "split-digits", "samples": 60}
CNN = {"name": "cnn", "width": 4}
ADAM = {"name": "adam", "lr": 0.01}


def fold_of(strategy: Any, **settings: Any) -> Fold:
    data = {"stream": STREAM, "strategy": strategy, "model": {"name": "mlp", "hidden": [8, 6]}}
    return Fold(
        make_plan(parse_config({**data, "optimizer": ADAM, **settings})),
        StateStore(None),
        Trackers(),
    )


def backprop(inner: str = "finetune", **given: object) -> dict[str, object]:
    return {"name": "continual-backprop", "inner": inner, **given}


def learning(**settings: Any) -> tuple[ContinualBackprop, Batch]:
    """Return a strategy that has learned an experience, with utilities of its own, and a batch."""
    fold = fold_of(backprop(replacement_rate=1e-9), **settings)
    fold.train()
    strategy = fold.strategy
    assert isinstance(strategy, ContinualBackprop)
    (batch, *_) = strategy.batches(fold.plan.steps[0].experience, size=16)
    return strategy, batch


@pytest.mark.parametrize(("inner", "model"), [("finetune", "mlp"), ("ewc", "mlp"), ("er", "cnn")])
def test_without_replacement_it_is_the_inner_strategy(inner: str, model: str) -> None:
    settings = {"stream": DIGITS, "model": CNN} if model == "cnn" else {}
    folds = [fold_of(inner, **settings), fold_of(backprop(inner, replacement_rate=0), **settings)]
    for fold in folds:
        fold.run()
    assert_equal(folds[0].strategy.state_dict(), folds[1].strategy.inner.state_dict())
    assert [r.rows for r in folds[0].records] == [r.rows for r in folds[1].records]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_watching_units_leaves_no_trace(model: str) -> None:
    settings = {"stream": DIGITS, "model": CNN} if model == "cnn" else {}
    plain, watched = fold_of("finetune", **settings), fold_of(backprop(maturity=10**6), **settings)
    for fold in (plain, watched):
        fold.run()
    assert_equal(plain.strategy.state_dict(), watched.strategy.inner.state_dict())


def test_a_units_utility_is_what_it_gives_to_the_next_layer() -> None:
    strategy = fold_of(backprop(replacement_rate=0.5, decay=0.75)).strategy
    assert isinstance(strategy, ContinualBackprop)
    x = torch.randn(5, *strategy.info.input_shape)
    strategy.generate_and_test(Batch(x, torch.zeros(5).long(), None, x))
    first, second = (m for m in strategy.model.body if isinstance(m, nn.Linear))
    h = relu(linear(x.flatten(1), first.weight, first.bias))
    expected = h.abs().mean(0) * second.weight.abs().sum(0)
    units = strategy.units[0]
    assert torch.allclose(units.utility, 0.25 * expected, atol=1e-6)
    assert torch.allclose(units.corrected(units.utility), expected, atol=1e-6)
    assert torch.allclose(units.corrected(units.activation), h.mean(0), atol=1e-6)
    last = relu(linear(h, second.weight, second.bias))
    expected = last.abs().mean(0) * strategy.model.classifier.weight.abs().sum(0)
    assert torch.allclose(
        strategy.units[1].corrected(strategy.units[1].utility), expected, atol=1e-6
    )


def test_a_replaced_unit_starts_anew_and_the_others_do_not_notice() -> None:
    strategy, _ = learning()
    first, second = (m for m in strategy.model.body if isinstance(m, nn.Linear))
    units, which = strategy.units[0], torch.tensor([2, 5])
    others = torch.tensor([i for i in range(8) if i not in (2, 5)])
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    mean = units.corrected(units.activation)[which]
    with torch.no_grad():
        strategy.replace(first, second, units, which)
    after = strategy.model.state_dict()
    names = {id(p): n for n, p in strategy.model.named_parameters()}
    weight, bias, out = names[id(first.weight)], names[id(first.bias)], names[id(second.weight)]
    assert not after[out][:, which].any()
    assert not after[bias][which].any()
    assert (after[weight][which] != before[weight][which]).all()
    assert after[weight][which].abs().max() <= first.in_features**-0.5
    for name, rows in ((weight, True), (bias, True), (out, False)):
        kept = [t[others] if rows else t[:, others] for t in (before[name], after[name])]
        assert torch.equal(*kept)
    shift = after[names[id(second.bias)]] - before[names[id(second.bias)]]
    assert torch.allclose(shift, before[out][:, which] @ mean, atol=1e-6)
    for parameter, rows in ((first.weight, True), (first.bias, True), (second.weight, False)):
        for key in ("exp_avg", "exp_avg_sq"):
            moment = strategy.optimizer.state[parameter][key]
            assert not (moment[which] if rows else moment[:, which]).any()
            assert (moment[others] if rows else moment[:, others]).any()
    assert not units.age[which].any()
    assert units.age[others].all()


def test_a_channel_of_a_convolution_starts_anew_with_its_norm() -> None:
    strategy, _ = learning(stream=DIGITS, model={**CNN, "norm": "batch"})
    body = strategy.model.body
    layer, norm, after = body[0], body[1], body[3]
    units, which = strategy.units[0], torch.tensor([1])
    assert norm.running_mean[1] != 0
    with torch.no_grad():
        strategy.replace(layer, after, units, which)
    assert not after.weight[:, 1].any()
    state = norm.state_dict()
    found = [float(state[n][1]) for n in ("weight", "bias", "running_mean", "running_var")]
    assert found == [1, 0, 0, 1]
    # The last one is seen by the classifier, after global averaging.
    assert [u.size for u in strategy.units] == [4, 4, 8, 8]
    last = strategy.units[3]
    with torch.no_grad():
        strategy.replace(body[10], strategy.model.classifier, last, torch.tensor([7]))
    assert not strategy.model.classifier.weight[:, 7].any()


def test_mature_units_are_replaced_at_their_rate_and_the_least_useful_first() -> None:
    units = Units(10, 3, 0.9, torch.device("cpu"))
    utilities = torch.arange(10, 0, -1.0)
    replaced = []
    for _ in range(12):
        units.update(torch.ones(1, 10, 1), utilities)
        n = units.due(0.05)
        replaced += units.least(n).tolist()
        units.restart(units.least(n))
    # From the 4th step on there are 10 mature ones, and half a unit a step is due: after steps 5,
    # 8 (9 of them), 10 and 12. A new unit is as useful as before, and its turn comes again.
    assert replaced == [9, 8, 9, 8]
    assert units.replaced == 4
    mirror = Units(10, 3, 0.9, torch.device("cpu"))
    mirror.load_state_dict(units.state_dict())
    for _ in range(20):  # goes on as the other does
        dues = []
        for one in (units, mirror):
            one.update(torch.ones(1, 10, 1), utilities)
            dues.append(one.due(0.05))
            one.restart(one.least(dues[-1]))
        assert dues[0] == dues[1]


def test_no_more_units_are_replaced_than_there_are_mature_ones() -> None:
    units = Units(3, 1, 0.9, torch.device("cpu"))
    for step in range(6):
        units.update(torch.ones(1, 3, 1), torch.ones(3))
        n = units.due(1.0)
        assert n == (3 if step % 2 else 0)
        units.restart(units.least(n))


def test_it_counts_what_it_has_replaced() -> None:
    fold = fold_of(backprop(replacement_rate=0.05, maturity=2))
    fold.run()
    first, second = fold.strategy.diagnostics()["replaced_units"]
    steps = sum(int(r.cost["steps"]) for r in fold.records[1:])
    assert 0 < second < first <= 0.05 * 8 * steps


@pytest.mark.parametrize(
    ("strategy", "model"),
    [(backprop(), "slim-resnet18"), (backprop("ncm"), "slim-resnet18")],
)
def test_networks_that_are_no_chain_are_refused(strategy: Any, model: str) -> None:
    with pytest.raises(BadInput, match="has SlimResNet18: give --model mlp or cnn"):
        fold_of(strategy, stream=DIGITS, model=model).begin()


def test_moments_are_those_of_any_optimizer() -> None:
    for optimizer in ({"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "sgd", "lr": 0.1}):
        strategy, _ = learning(optimizer=optimizer)
        found: list[Tensor] = list(strategy.moments(strategy.model.classifier.weight))
        assert len(found) == int("momentum" in optimizer)
