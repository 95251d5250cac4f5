"""From raw inputs to what a model sees: batched augmentation and normalisation on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cl_platform.core.augmentation import Augmentation, Mixing, is_token_type
from cl_platform.core.batch import Batch
from cl_platform.errors import BadInput, ContractError

StreamAugmentation = Literal["none", "crop", "crop-flip"]


@dataclass(frozen=True)
class Preprocess:
    """Augmentation (training only), then ``(x - mean) / std`` per channel.

    Args:
        mean, std: per channel, in the units of the raw inputs; None leaves inputs as they are.
        augmentation: ``crop`` shifts each image by up to `padding` pixels (zeros come in at the
            border), ``crop-flip`` also mirrors half of them left to right. A run's own
            augmentation stands here as a tuple, applied in order.
        padding: largest shift in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: StreamAugmentation | tuple[Augmentation, ...] = "none"
    padding: int = 4

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(float(v) for v in value))
        if not all(0 < std < math.inf for std in self.std or ()):
            raise BadInput(
                f"std {self.std}: give positive numbers, 1 for a channel that does not vary"
            )

    def __call__(
        self, raw: Tensor, generator: torch.Generator | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Turn stored inputs (B, C, H, W) or (B, D) into float32; token ids stay as they are.

        Grey images have three channels afterwards if there are three means.
        With a generator, the images are augmented (training); without one they are not.

        Args:
            out: float32 of the same shape, where the result goes if it has that shape.
        """
        if generator is not None and self.augmentation != "none":
            if isinstance(self.augmentation, tuple):
                for change in self.augmentation:
                    raw = _changed(change, raw, generator)
            else:
                raw = self._shifted(raw, generator)
        if self.mean is None or self.std is None:
            return raw if holds_tokens(raw) else _float(raw, out)
        x = _float(raw, out)  # arithmetic of mixed types is several times slower
        mean, scale = _constants(self.mean, self.std, raw.dim(), raw.device)
        new = x is not raw and mean.shape[1] in (1, x.shape[1])
        return (x.sub_(mean) if new else x - mean).mul_(scale)

    def views(self, raw: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return stored inputs augmented, and a second time if the augmentation asks for two."""
        own = self.augmentation
        single = isinstance(own, str) or all(a.views == 1 for a in own)
        return self(raw, generator), None if single else self(raw, generator)

    def mixer(self, n_classes: int, generator: torch.Generator) -> Callable[[Batch], Batch] | None:
        """Return what mixes the samples of a batch with each other, if the augmentation does."""
        mixing = [a for a in self.augmentation if isinstance(a, Mixing)]  # of text, nothing is

        def mix(batch: Batch) -> Batch:
            inputs = [batch.x] if batch.x2 is None else [batch.x, batch.x2]
            target = one_hot(batch.y, n_classes).float()
            for change in mixing:
                inputs, target = change.mix(inputs, target, generator)
            return replace(batch, x=inputs[0], target=target, x2=inputs[1] if inputs[1:] else None)

        return mix if mixing else None

    def _shifted(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Shift (and mirror) each image by its own draw, in one gather."""
        n, _, height, width = raw.shape
        device, pad = raw.device, self.padding

        def draw(high: int) -> Tensor:
            return torch.randint(high, (n, 1), generator=generator, device=device)

        rows = torch.arange(height, device=device) + draw(2 * pad + 1)
        columns = torch.arange(width, device=device).expand(n, width)
        if self.augmentation == "crop-flip":
            columns = torch.where(draw(2).bool(), columns.flip(1), columns)
        columns = columns + draw(2 * pad + 1)
        padded = torch.nn.functional.pad(raw, (pad, pad, pad, pad))
        image = torch.arange(n, device=device)[:, None, None]
        # Indices around the channel slice put the channels last.
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _float(raw: Tensor, out: Tensor | None) -> Tensor:
    return raw.float() if out is None else out.copy_(raw)


def holds_tokens(raw: Tensor) -> bool:
    """Return whether inputs are token ids: integers of another type than uint8, that of images."""
    return is_token_type(raw.dtype)


def _changed(change: Augmentation, raw: Tensor, generator: torch.Generator) -> Tensor:
    changed = change(raw, generator)
    if changed.shape != raw.shape or changed.dtype != raw.dtype:
        raise ContractError(
            f"augmentation {type(change).__name__} made {tuple(changed.shape)} {changed.dtype} of "
            f"{tuple(raw.shape)} {raw.dtype}: return images as they came"
        )
    return changed


@cache
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], dimensions: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return mean and 1/std as (1, C, 1, ...) tensors; made once, since replay needs
    them at every step."""
    shape = (1, -1) + (1,) * (dimensions - 2)
    means = torch.tensor(mean, device=device).view(shape)
    return means, 1 / torch.tensor(std, device=device).view(shape)
