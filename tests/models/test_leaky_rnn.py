"""Leaky units step by step."""

from __future__ import annotations

import pytest
import torch

from cl_platform.errors import BadInput
from cl_platform.models.leaky_rnn import LeakyRNN


@pytest.mark.parametrize("activation", ["tanh", "leaky-relu"])
def test_a_step_is_the_formula(activation: str) -> None:
    torch.manual_seed(0)
    model = LeakyRNN((3,), 2, width=4, tau=2.5, activation=activation)  # type: ignore[arg-type]
    f = torch.tanh if activation == "tanh" else lambda x: x.where(x > 0, 0.1 * x)
    w = model.recurrent.weight * (1 - torch.eye(4))
    x = torch.randn(5, 3)
    h = torch.zeros(5, 4)
    for step in range(3):
        drive = h @ w.T + x[:, step, None] @ model.inputs.weight.T
        h = f((1 - 1 / 2.5) * h + drive / 2.5)
    torch.testing.assert_close(model.features(x), h)


def test_zeros_before_a_sequence_change_nothing() -> None:
    model = LeakyRNN((6,), 2)
    x = torch.randn(2, 6)
    x[:, :3] = 0
    assert torch.equal(model(x), LeakyRNN.forward(model, x[:, 3:]))


def test_time_constants_stay_above_one() -> None:
    model = LeakyRNN((2,), 2, width=3)
    model.above_one.data = torch.tensor([-3.0, 0.0, 0.5])
    assert model.tau.tolist() == [4.0, 1.0, 1.5]
    model(torch.randn(4, 2)).sum().backward()
    assert model.above_one.grad is not None
    diagonal = model.recurrent.weight.grad.diagonal()  # type: ignore[union-attr]
    assert torch.equal(diagonal, torch.zeros(3))
    assert not LeakyRNN((2,), 2, train_tau=False).above_one.requires_grad


def test_vectors_and_rows_of_images_are_steps_too() -> None:
    assert LeakyRNN((7, 5), 3).inputs.in_features == 5
    image = LeakyRNN((2, 4, 6), 3)
    assert image.inputs.in_features == 12
    x = torch.randn(3, 2, 4, 6)
    rows = LeakyRNN((4, 12), 3)
    rows.load_state_dict(image.state_dict())
    steps = torch.stack([torch.cat([x[:, 0, i], x[:, 1, i]], 1) for i in range(4)], 1)
    assert torch.equal(image(x), rows(steps))


def test_states_are_float32_in_bf16() -> None:
    model, x = LeakyRNN((5,), 2), torch.randn(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(x)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, model.features(x), atol=0.02, rtol=0.05)


def test_token_ids_are_refused() -> None:
    with pytest.raises(BadInput, match="a leaky-rnn cannot read"):
        LeakyRNN((4,), 2)(torch.zeros(2, 4, dtype=torch.int32))
