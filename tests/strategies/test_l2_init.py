"""L2 towards the initial weights: a golden loss and gradient, and the limits of its strength."""

from __future__ import annotations

import pytest
import torch

from strategies.l2_init import L2Init
from strategies.parts.gradients import flatten, trainable
from tests.strategies.test_merged import assert_equal, ended, fold_of


def test_the_penalty_holds_from_the_first_step_on() -> None:
    fold = fold_of({"name": "l2-init", "strength": 0.3})
    fold.run(upto=1)
    strategy = fold.strategy
    assert isinstance(strategy, L2Init)
    start = flatten(trainable(fold_of("finetune").strategy.model))
    apart = flatten(trainable(strategy.model)) - start
    (batch, *_) = strategy.batches(fold.plan.steps[0].experience)
    fold.rng.restart(1)  # in the first experience
    plain = strategy.cross_entropy(strategy(batch.x), batch)
    loss = strategy.loss(batch)
    assert float((loss - plain).detach()) == pytest.approx(
        0.15 * float(apart.square().sum()), rel=1e-4
    )
    parameters = trainable(strategy.model)
    gradients = [torch.autograd.grad(v, parameters) for v in (loss, plain)]
    pull = flatten(gradients[0]) - flatten(gradients[1])
    assert torch.allclose(pull, 0.3 * apart, atol=1e-6)


def test_without_strength_it_is_finetuning() -> None:
    plain, held = ended("finetune").strategy, ended({"name": "l2-init", "strength": 0}).strategy
    assert_equal(dict(plain.model.state_dict()), dict(held.model.state_dict()))


def test_a_strong_penalty_keeps_the_weights_near_the_start() -> None:
    start = flatten(trainable(fold_of("finetune").strategy.model))
    folds = [ended({"name": "l2-init", "strength": s}) for s in (0.0, 5.0)]
    free, held = (flatten(trainable(f.strategy.model)) - start for f in folds)
    assert held.norm() < free.norm() / 2
