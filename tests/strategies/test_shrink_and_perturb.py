"""Shrink and perturb: a golden step, and nothing else than what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from strategies.baselines import Finetune
from strategies.shrink_and_perturb import ShrinkAndPerturb
from tests.strategies.test_merged import assert_equal, ended, fold_of


def around(inner: str, **given: object) -> dict[str, object]:
    return {"name": "shrink-and-perturb", "inner": inner, **given}


@pytest.mark.parametrize("inner", ["er", "ewc"])
def test_without_shrinking_and_noise_it_is_the_inner_strategy(inner: str) -> None:
    plain, wrapped = ended(inner), ended(around(inner, shrink=1, noise=0))
    assert_equal(plain.strategy.state_dict(), wrapped.strategy.inner.state_dict())


def test_all_that_is_trained_is_scaled_and_disturbed() -> None:
    strategy = ShrinkAndPerturb(inner=Finetune(), shrink=0.5, noise=0.1)
    strategy.inner.model = nn.Linear(200, 200)
    frozen = strategy.inner.model.bias.requires_grad_(False)
    before, bias = strategy.model.weight.detach().clone(), frozen.clone()
    strategy.generator = torch.Generator().manual_seed(0)
    strategy.perturb()
    added = strategy.model.weight.detach() - 0.5 * before
    assert float(added.mean()) == pytest.approx(0, abs=0.002)
    assert float(added.std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(frozen, bias)


def test_the_first_experience_is_learned_from_the_weights_as_they_are() -> None:
    folds = [fold_of("finetune"), fold_of(around("finetune"))]
    for fold in folds:
        fold.run(upto=1)
    assert_equal(folds[0].strategy.state_dict(), folds[1].strategy.inner.state_dict())
    for fold in folds:
        fold.run(upto=2)
    names = ("model.body.1.weight", "model.classifier.bias")
    states = [folds[0].strategy.state_dict(), folds[1].strategy.inner.state_dict()]
    assert not any(torch.equal(states[0][n], states[1][n]) for n in names)
