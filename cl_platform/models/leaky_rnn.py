"""A recurrent network of units that forget slowly."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from cl_platform.errors import BadInput
from cl_platform.models.classifier import Classifier

Steps = Annotated[float, Field(ge=1)]


class LeakyRNN(Classifier):
    """Leaky units: h <- f((1 - 1/tau) h + (W h + U x) / tau), with a tau >= 1 of each unit.

    Inputs are sequences: (L,) is a number a step, (L, D) are D, and images (C, H, W) come row by
    row. Features are the last state. It starts at 0 and there is no bias, so that zeros before a
    sequence change nothing. W has a zero diagonal: a unit remembers by its tau or by way of others.

    Source: Khajehabdollahi et al. 2024.

    Args:
        width: number of units.
        tau: time constants at the start, in steps.
        train_tau: whether they are trained.
        activation: f; leaky ReLU has a slope of 0.1 below 0.
    """

    others: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        width: PositiveInt = 100,
        tau: Steps = 1.5,
        train_tau: bool = True,
        activation: Literal["tanh", "leaky-relu"] = "leaky-relu",
    ) -> None:
        super().__init__()
        self.inputs = nn.Linear(
            math.prod(_rows(torch.empty(1, *input_shape)).shape[2:]), width, False
        )
        self.recurrent = nn.Linear(width, width, bias=False)
        self.above_one = nn.Parameter(torch.full((width,), tau - 1), requires_grad=train_tau)
        self.register_buffer("others", 1 - torch.eye(width), persistent=False)
        self.activation = torch.tanh if activation == "tanh" else _leaky
        self.classifier = nn.Linear(width, n_classes)

    @property
    def tau(self) -> Tensor:
        """Return the time constants, (width,)."""
        return 1 + self.above_one.abs()

    def features(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise BadInput(
                "inputs are whole numbers, token ids, which a leaky-rnn cannot read; "
                "give --model minilm, or store numbers as float32"
            )
        drive = self.inputs(_rows(x))
        weight, share = self.recurrent.weight * self.others, 1 / self.tau
        h = torch.zeros_like(drive[:, 0])
        for step in drive.unbind(1):
            h = self.activation(h + share * (linear(h, weight) + step - h))  # in bf16: of float32
        return h


def _leaky(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.1)


def _rows(x: Tensor) -> Tensor:
    """Return inputs as sequences, (B, L, D)."""
    if x.dim() == 2:
        return x.unsqueeze(-1)
    return x.transpose(1, 2).flatten(2) if x.dim() == 4 else x
