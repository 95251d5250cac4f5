"""Networks of other makers without their heads: inputs of a stream in, features out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cl_platform.config.signatures import blame
from cl_platform.errors import BadInput
from cl_platform.models.outputs import logits_of


class Body(nn.Module):
    """A network that gives features (B, F) of inputs (B, *input_shape), fitted to it on the way.

    Args:
        network: without its head.
        title: what messages call it.
        channels: grey images are repeated to as many; None leaves inputs as they are.
        size: (height, width) that images are resized to; None leaves them.
    """

    def __init__(
        self,
        network: nn.Module,
        title: str,
        channels: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.title = network, title
        self.channels, self.size = channels, size

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = logits_of(self.network(self.fitted(x)))
        return features.flatten(1)

    def fitted(self, x: Tensor) -> Tensor:
        """Return inputs as the network takes them."""
        if self.channels is not None:
            x = x.expand(-1, self.channels, -1, -1)
        if self.size is not None and x.shape[2:] != self.size:
            x = interpolate(x, self.size, mode="bicubic", antialias=True)
        return x

    def mask(self, x: Tensor) -> Tensor | None:
        """Return which tokens of inputs are no padding, (B, n); None where all are real."""
        return None

    def trial(self, example: Tensor) -> Tensor:
        """Return the features of an example, (2, F); the network stays as it is.

        Raises:
            BadInput: it does not take such inputs, or gives no features.
        """
        features = trial(self, example, self.title)
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(example):
            raise BadInput(f"{self.title} gives no features (B, F) of inputs {example.shape[1:]}")
        return features


def trial(network: nn.Module, example: Tensor, title: str) -> Any:
    """Return what a network gives for an example, in eval mode and without gradients.

    Raises:
        BadInput: it raises an error.
    """
    training = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            return network.eval()(example)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{title} takes no inputs of shape {tuple(example.shape[1:])}: {blame(error)}"
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode


def example_of(input_shape: tuple[int, ...]) -> Tensor:
    """Return two inputs for a trial, the same whatever the seed."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *input_shape, generator=generator)
