"""What a model has to do for its inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cl_platform.models.work import multiplications, weights_of


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (nn.Linear(5, 3), (2, 5), 2 * 5 * 3),
        (nn.Linear(5, 3), (2, 7, 5), 2 * 7 * 5 * 3),
        (nn.Conv2d(3, 4, 3), (2, 3, 6, 6), 2 * 16 * 4 * 3 * 9),
        (nn.Conv2d(4, 4, 3, groups=2), (1, 4, 3, 3), 4 * 2 * 9),
        (nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), (4, 5), 4 * 21),
        (nn.LayerNorm((2, 5)), (3, 2, 5), 0),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), (2, 5), 0),
    ],
    ids=str,
)
def test_multiplications_are_counted(layer: nn.Module, shape: tuple[int, ...], wanted: int) -> None:
    assert multiplications(layer, lambda: layer(torch.randn(shape))) == wanted
    assert not any(m._forward_hooks for m in layer.modules())


def test_those_of_attention_are_the_weights_of_each_token() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(2, 3, 4)
    assert multiplications(attention, lambda: attention(x, x, x)) == 2 * 3 * (3 * 4 * 4)


def test_looking_up_a_word_multiplies_nothing() -> None:
    words = nn.Embedding(10, 4)
    assert multiplications(words, lambda: words(torch.tensor([[1, 2]]))) == 0


def test_a_weight_of_a_convolution_is_used_at_every_place() -> None:
    flat, convolution = nn.Linear(36, 4), nn.Conv2d(1, 4, 3)
    assert (weights_of(flat), weights_of(convolution)) == (36 * 4, 4 * 9)
    assert multiplications(flat, lambda: flat(torch.zeros(1, 36))) == weights_of(flat)
    image = torch.zeros(1, 1, 6, 6)
    assert multiplications(convolution, lambda: convolution(image)) == 16 * weights_of(convolution)
    assert weights_of(nn.Embedding(10, 4)) == 0
