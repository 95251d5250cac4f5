"""Gradients beyond `backward`: flat, of single samples, and without traces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cl_platform.models.cnn import SmallCNN
from strategies.parts import gradients
from strategies.parts.gradients import (
    flat_gradient,
    flatten,
    frozen_statistics,
    sample_gradients,
    trainable,
    views,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN((1, 8, 8), 3, width=4)


def data(n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    return x, torch.randint(3, (n,), generator=generator)


@pytest.mark.parametrize("chunk_bytes", [1, 2**16, 2**26])
def test_gradients_of_single_samples_are_those_of_batches_of_one(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "CHUNK_BYTES", chunk_bytes)
    model, (x, y) = network().train(), data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    together = torch.cat(list(sample_gradients(model, cross_entropy, x, y)))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    alone = [
        flat_gradient(cross_entropy(model(x[[i]]), y[[i]]), trainable(model)) for i in range(6)
    ]
    assert torch.allclose(together, torch.stack(alone), rtol=1e-3, atol=1e-6)


def test_chunks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = network(), data()
    size = sum(p.numel() for p in trainable(model))
    monkeypatch.setattr(gradients, "CHUNK_BYTES", 4 * size * 4)
    assert [len(g) for g in sample_gradients(model, cross_entropy, x, y)] == [4, 2]


def test_frozen_parameters_have_no_part() -> None:
    model, (x, y) = network(), data()
    model.classifier.requires_grad_(False)
    size = sum(p.numel() for p in trainable(model))
    assert next(sample_gradients(model, cross_entropy, x, y)).shape == (6, size)


def test_parameters_that_a_loss_does_not_depend_on_have_gradient_zero() -> None:
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    gradient = flat_gradient(model[1](torch.ones(1, 2)).sum(), trainable(model))
    assert gradient.tolist() == [0, 0, 0, 1, 1, 1]


def test_views_share_memory_with_the_vector() -> None:
    model = nn.Linear(3, 2)
    flat = flatten(trainable(model))
    weight, bias = views(flat, trainable(model))
    assert torch.equal(weight, model.weight)
    bias.zero_()
    assert not flat[-2:].any()
    stacked = views(torch.stack([flat, 2 * flat]), trainable(model))
    assert stacked[0].shape == (2, 2, 3)


def test_statistics_are_frozen_inside_and_only_there() -> None:
    model, (x, _) = network().train(), data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with frozen_statistics(model):
        inside = model(x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(inside, model(x))  # the same output, that of training
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
