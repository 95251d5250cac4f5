"""The contract of an augmentation: random changes of training images, a draw for every sample."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from cl_platform.errors import BadInput


class Augmentation:
    """Changes training images at random, a whole batch in one call.

    A subclass is a dataclass whose fields are its parameters; its instances are called with stored
    images and return as many of the same shape and type. Every sample has draws of its own, all
    from the generator that is passed, so that a run is repeated to the bit.
    """

    plugin_kind: ClassVar[Literal["augmentation"]] = "augmentation"

    views: ClassVar[int] = 1
    """How often a run that names it draws all of its augmentation; the second is `batch.x2`."""

    def check(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Refuse, when a run is planned, inputs that it cannot change.

        Args:
            shape: of one stored input; dtype: of all, uint8 for images.

        Raises:
            BadInput: says what it takes.
        """
        if len(shape) != 3 or is_token_type(dtype):
            raise BadInput(f"takes images (C, H, W), the stream has {described(shape, dtype)}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (B, C, H, W) as stored, changed."""
        raise NotImplementedError


class Mixing(Augmentation):
    """Mixes the samples of a batch with each other, and their labels alike.

    It comes after all others and after normalisation: stored images stay as they are.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images

    def mix(
        self, inputs: list[Tensor], target: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Return mixed inputs and targets.

        Args:
            inputs: what the model would see, (B, ...) float32; two views of the same samples if
                there are two, which are mixed with the same draws.
            target: (B, n_classes), a distribution for each sample.
        """
        raise NotImplementedError


def is_token_type(dtype: torch.dtype) -> bool:
    """Return whether inputs are token ids: integers of another type than uint8, that of images."""
    return not dtype.is_floating_point and dtype not in (torch.uint8, torch.bool)


def described(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """Return stored inputs in a few words."""
    what = "token ids" if is_token_type(dtype) else "images" if len(shape) == 3 else "vectors"
    return f"{what} of {str(dtype).removeprefix('torch.')} and shape {shape}"
