"""Convolutional networks: a small one, and residual networks for small images."""

from __future__ import annotations

from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import relu

from cl_platform.errors import BadInput
from cl_platform.models.classifier import Classifier, Norm, norm_layer


class SmallCNN(Classifier):
    """Four 3x3 convolutions, each pair followed by 2x2 max pooling, then global averaging.

    Args:
        width: channels of the first two, half of those of the last two.
        norm: of batches, or of groups of channels, which needs no statistics of the data.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        width: PositiveInt = 32,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, *_ = image_shape(input_shape)
        widths = [channels, width, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)]
            layers += [norm_layer(norm, n_out), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i % 2 else []
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], n_classes)

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features


class ResNet18(Classifier):
    """ResNet-18 with the stem for small images: one 3x3 convolution of stride 1, no pooling.

    Source: He et al. 2016; the stem and the widths 64-128-256-512 as in Rebuffi et al. 2017 and
    most continual-learning work on 32x32 images.

    Args:
        width: channels of the first of four stages, each of which has twice those before.
        norm: of batches, or of groups of channels, which needs no statistics of the data.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        width: PositiveInt = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, *_ = image_shape(input_shape)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), norm_layer(norm, width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width * 2**stage
            blocks.append(ResidualBlock(before, after, stride=1 if stage == 0 else 2, norm=norm))
            blocks.append(ResidualBlock(after, after, stride=1, norm=norm))
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(before, n_classes)

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(self.stem(x))
        return maps.mean((2, 3))


class SlimResNet18(ResNet18):
    """ResNet-18 with 20 instead of 64 initial channels, as in Lopez-Paz & Ranzato 2017."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        width: PositiveInt = 20,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(input_shape, n_classes, width=width, norm=norm)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (a 1x1 convolution where the shape changes)."""

    def __init__(self, n_in: int, n_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False),
            norm_layer(norm, n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            norm_layer(norm, n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), norm_layer(norm, n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.body(x) + self.shortcut(x))


def image_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Raises:
        BadInput: the stream's inputs are no images.
    """
    if len(input_shape) != 3:
        raise BadInput(
            f"inputs of shape {tuple(input_shape)} are no images (channels, height, width); "
            "give --model mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
