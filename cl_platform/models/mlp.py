"""A multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.classifier import Classifier


class MLP(Classifier):
    """Fully connected layers, each with an activation.

    The default, two hidden layers of 400 units, is the network of van de Ven & Tolias 2019 for
    Split MNIST.

    Args:
        hidden: width of each hidden layer.
        activation: after each of them.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        hidden: Sequence[PositiveInt] = (400, 400),
        activation: Literal["relu", "tanh"] = "relu",
    ) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU() if activation == "relu" else nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], n_classes)

    def features(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise BadInput(
                "inputs are whole numbers, token ids, which an mlp cannot read; "
                "give --model minilm, or store numbers as float32"
            )
        features: Tensor = self.body(x)
        return features
