"""Convolutional networks with published weights, and a new classifier on top of them.

The weights are files that are put by hand into ``$CLP_DATA/pretrained``.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput
from cl_platform.models.classifier import Classifier
from cl_platform.models.cnn import image_shape
from cl_platform.models.weights import file_digest, fill, weights_file

IMAGENET = Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


class CifarResNet(Classifier):
    """A ResNet of 20 or 32 layers for 32x32 images that was trained on CIFAR-10.

    Source: He et al. 2016, section 4.2, with parameter-free shortcuts; weights of
    ``akamaster/pytorch_resnet_cifar10``.

    Args:
        input_shape: grey or coloured images, (1 or 3, H, W); resized to 32x32.
        depth: number of layers.
        weights: their file; None takes ``resnet<depth>-*.th`` of ``$CLP_DATA/pretrained``.

    Raises:
        BadInput: the inputs are no such images.
        DataError: the weights are missing, damaged, or those of another network.
    """

    pretrained: ClassVar[bool] = True
    preprocess: ClassVar[Preprocess] = IMAGENET  # its authors used the statistics of ImageNet

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        depth: Literal[20, 32] = 20,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_channels(input_shape)
        blocks = (depth - 2) // 6
        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(16),
                relu=nn.ReLU(),
                layer1=_stage(16, 16, blocks),
                layer2=_stage(16, 32, blocks),
                layer3=_stage(32, 64, blocks),
            )
        )
        fill(self.body, self._file(depth, weights), without="linear")
        self.classifier = nn.Linear(64, n_classes)

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.body(coloured(x, 32))
        return maps.mean((2, 3))

    @staticmethod
    def fingerprint(depth: int = 20, weights: str | None = None) -> str:
        """Return the sha256 of the weights that a model with these parameters begins with."""
        return file_digest(CifarResNet._file(depth, weights))

    @staticmethod
    def _file(depth: int, weights: str | None) -> Path:
        return weights_file(f"resnet{depth}-*.th", weights)


class MobileNetV1(Classifier):
    """MobileNetV1 with 0.75 of the channels, trained on ImageNet with 224x224 images.

    Source: Howard et al. 2017, table 1; Google's weights, with the names of Keras.

    Args:
        input_shape: grey or coloured images, (1 or 3, H, W).
        size: height and width that images are resized to, in pixels; a multiple of 32.
        weights: their file; None takes ``mobilenet_v1_075_*.pt`` of ``$CLP_DATA/pretrained``.

    Raises:
        BadInput: the inputs are no such images.
        DataError: the weights are missing, damaged, or those of another network.
    """

    pretrained: ClassVar[bool] = True
    preprocess: ClassVar[Preprocess] = Preprocess(mean=(127.5,) * 3, std=(127.5,) * 3)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        size: Annotated[PositiveInt, Field(multiple_of=32)] = 96,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_channels(input_shape)
        self.size = size
        layers = _convolution("conv1", 3, 24, stride=2)
        wide = 24
        for i, wider in enumerate((48, 96, 96, 192, 192, *(384,) * 6, 768, 768), start=1):
            stride = 2 if i in (2, 4, 6, 12) else 1
            layers |= _convolution(f"conv_dw_{i}", wide, wide, stride, groups=wide)
            layers |= _convolution(f"conv_pw_{i}", wide, wider, kernel=1)
            wide = wider
        self.body = nn.Sequential(OrderedDict(layers))
        fill(self.body, self._file(weights), without="conv_preds")
        self.classifier = nn.Linear(wide, n_classes)

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.body(coloured(x, self.size))
        return maps.mean((2, 3))

    @staticmethod
    def fingerprint(size: int = 96, weights: str | None = None) -> str:
        """Return the sha256 of the weights that a model with these parameters begins with."""
        return file_digest(MobileNetV1._file(weights))

    @staticmethod
    def _file(weights: str | None) -> Path:
        return weights_file("mobilenet_v1_075_*.pt", weights)


def check_channels(input_shape: tuple[int, ...]) -> None:
    """Raise BadInput unless inputs are images with one or three channels."""
    channels, *_ = image_shape(input_shape)
    if channels not in (1, 3):
        raise BadInput(
            f"images of {channels} channels: a pretrained network takes grey (1) or coloured (3) "
            "ones; give --model cnn"
        )


def coloured(x: Tensor, size: int) -> Tensor:
    """Resize (B, 1 or 3, H, W) to (B, 3, size, size); a grey channel is repeated.

    Channels come last in memory: convolutions in inference are up to twice as fast so, on a CPU.
    """
    x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    if x.shape[2:] == (size, size):
        return x
    return interpolate(x, (size, size), mode="bilinear", antialias=True)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, wide_in: int, wide: int) -> None:
        super().__init__()
        self.stride = 1 if wide_in == wide else 2
        self.conv1 = nn.Conv2d(wide_in, wide, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:  # every other pixel, and channels of zeros on both sides
            more = (out.shape[1] - x.shape[1]) // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        return relu(out + x)


def _stage(wide_in: int, wide: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Block(wide_in, wide), *(_Block(wide, wide) for _ in range(blocks - 1)))


def _convolution(
    name: str, wide_in: int, wide: int, stride: int = 1, kernel: int = 3, groups: int = 1
) -> dict[str, nn.Module]:
    """Return a convolution, batch norm and ReLU6, by the names of their weights.

    At stride 2 the border is at the right and the bottom only, as TensorFlow has it for even sizes.
    """
    border = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
    padding = 0 if stride == 2 else kernel // 2
    convolution = nn.Conv2d(wide_in, wide, kernel, stride, padding, groups=groups, bias=False)
    return {
        f"{name}_border": border,
        name: convolution,
        f"{name}_bn": nn.BatchNorm2d(wide, eps=1e-3),
        f"{name}_relu": nn.ReLU6(),
    }
