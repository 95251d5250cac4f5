"""The unified objective: its terms are the losses of the strategies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.parts.gradients import flatten, trainable
from tests.helpers.replay import with_replay
from tests.strategies import bregman

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 20}


def trained(strategy: dict) -> Fold:
    fold = Fold(
        make_plan(parse_config({"stream": BLOBS, "strategy": strategy})),
        StateStore(None),
        Trackers(),
    )
    fold.train()
    fold.train()
    return fold


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


POTENTIALS = {
    "negative entropy": (bregman.negative_entropy, lambda x: x.softmax(-1)),
    "half square": (bregman.half_square, lambda x: x),
    "weighted": (bregman.weighted_half_square(random(6).abs()), lambda x: x),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_divergence_is_positive_and_zero_only_between_equals(name: str) -> None:
    potential, into_domain = POTENTIALS[name]
    p, q = into_domain(random(50, 6)), into_domain(random(50, 6, seed=1))
    assert (bregman.divergence(potential, p, q) > 0).all()
    assert torch.allclose(
        bregman.divergence(potential, p, p), torch.zeros(50, dtype=p.dtype), atol=1e-12
    )


def test_the_entropys_divergence_is_that_of_kullback_and_leibler() -> None:
    p, q = random(20, 5).softmax(1), random(20, 5, seed=1).softmax(1)
    expected = (p * (p / q).log()).sum(1)
    assert torch.allclose(bregman.divergence(bregman.negative_entropy, p, q), expected, atol=1e-12)


def test_a_divergence_can_be_trained_on() -> None:
    p, q = random(4, 5).requires_grad_(), random(4, 5, seed=1)
    bregman.divergence(bregman.half_square, p, q).sum().backward()
    assert torch.allclose(p.grad, p.detach() - q)


def test_ers_memory_loss_is_the_divergence_of_labels_from_predictions() -> None:
    fold = trained({"name": "er", "memory_size": 20})
    batch = next(fold.strategy.batches(fold.plan.steps[1].experience, 8))
    both = with_replay(fold.strategy, batch)
    strategy, both = fold.strategy.double(), replace(both, x=both.x.double())
    loss, new, old = strategy.loss(both), both.new, both.old
    new_term = cross_entropy(strategy(new.x), new.y)
    old_term = bregman.replay_term(strategy(old.x), old.y).mean()
    assert loss.item() == pytest.approx((new_term + old_term).item() / 2, abs=1e-6)


def test_ders_memory_loss_is_the_divergence_of_logits() -> None:
    fold = trained({"name": "der", "memory_size": 20, "alpha": 0.7})
    strategy = fold.strategy
    batch = next(strategy.batches(fold.plan.steps[1].experience, 8))
    both = with_replay(strategy, batch)
    old, stored = both.old, strategy.buffer.stored("logits", both.old.rows)
    term = bregman.logit_term(strategy(old.x), stored).mean() * 2 / strategy.info.n_classes
    expected = cross_entropy(strategy(batch.x), batch.y) + 0.7 * term
    assert strategy.loss(both).item() == pytest.approx(expected.item(), rel=1e-6)


def test_ewcs_penalty_is_the_divergence_of_parameters() -> None:
    fold = trained({"name": "ewc", "strength": 30.0, "mode": "online"})
    strategy = fold.strategy
    with torch.no_grad():
        for p in strategy.parameters():
            p.add_(0.1)
    batch = next(strategy.batches(fold.plan.steps[1].experience, 8))
    theta, penalty = flatten(trainable(strategy.model)), strategy.penalty
    term = bregman.parameter_term(
        theta.double(), penalty.anchor.double(), penalty.importance.double()
    )
    expected = cross_entropy(strategy(batch.x), batch.y) + 30.0 * term
    assert term > 0
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-6)
