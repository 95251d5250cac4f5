"""The switches of few-shot class-incremental learning, with the losses and copies they need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from cl_platform import Strategy, StreamInfo
from cl_platform.core.augmentation import is_token_type

NECK = 512  # width of the neck that `etf` brings along, as published

Copies = Literal[1, 2, 4, 6, 12]

TURNS: dict[int, tuple[int, ...]] = {
    1: (0,),
    2: (0, 2),
    4: (0, 1, 2, 3),
    6: (0, 2),
    12: (0, 1, 2, 3),
}
QUARTERS = (0, 1, 2, 3)


class Tricks(Strategy):
    """What may be switched on in :class:`strategies.fscil.FSCIL`.

    Args:
        contrastive: the base session has a supervised contrastive loss on two views as well
            (``two-views`` among the run's augmentations; inputs that cannot be augmented have one
            view, and other samples of the class are what is alike).
        etf: classes have prototypes assigned beforehand, the vertices of a simplex over **all**
            classes of the stream, whose number must be known; the base session learns by
            dot-regression, and later ones train the neck on the mean backbone feature of every
            class so far together with the new samples.
        pseudo_classes: copies of each image, turned and recoloured, that are classes of their own;
            in a prediction the logits of all copies are averaged. 1 is plain.
        subnet: share of the weights of the last block before the classifier that later experiences
            tune: those with the largest \\|gradient * weight\\| on their samples. 0 tunes none.
        self_supervised: the first epochs of the base session that learn without labels, to tell
            the views of a sample from all others (SimCLR). They are of the run's epochs, not
            beyond them, and never the last one.
        rotation: the base session also predicts by how many quarters an image was turned.
        freeze: the backbone is never trained, a pretrained one; the base session trains the neck.
        neck: width of an MLP between backbone and classifier; None has one with `etf` only.
        scale: of cosines, to logits.
        contrastive_weight, rotation_weight: of these losses.
        temperature: of the contrastive losses.
    """

    contrastive: bool = False
    etf: bool = False
    pseudo_classes: Copies = 1
    subnet: Annotated[float, Field(ge=0, le=1)] = 0.0
    self_supervised: NonNegativeInt = 0
    rotation: bool = False
    freeze: bool = False
    neck: PositiveInt | None = None
    scale: PositiveFloat = 16.0
    contrastive_weight: NonNegativeFloat = 0.2
    rotation_weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 0.07

    @property
    def needs_horizon(self) -> bool:  # type: ignore[override]
        return self.etf  # its prototypes are of all classes to come

    @property
    def takes_features(self) -> bool:  # type: ignore[override]
        return self.freeze

    @property
    def freezes_model(self) -> bool:  # type: ignore[override]
        return self.freeze

    @property
    def refuses(self) -> tuple[str, ...]:  # type: ignore[override]
        """The means are features under the weights that are trained, and some losses are by class;
        without labels, accuracy says nothing."""
        by_class = self.contrastive or self.etf or self.pseudo_classes > 1
        blind = self.self_supervised > 0
        return ("ema", *["mixing"] * by_class, *["early_stopping"] * blind)

    @property
    def neck_width(self) -> int:
        """Width of the neck, 0 without one."""
        return self.neck or (NECK if self.etf else 0)

    def faults(self, info: StreamInfo, features: bool) -> Iterator[str]:
        """Yield what cannot be done with the stream's inputs or the model, a line each.

        Args:
            features: whether the model shows what its classifier sees.
        """
        shape, tokens = info.input_shape, is_token_type(info.input_dtype)
        given, m, neck = info.preprocess.augmentation, self.pseudo_classes, self.neck_width
        one_view = isinstance(given, str) or all(a.views == 1 for a in given)
        are_images = images_fault(1, False, shape, tokens) is None
        asked = {
            "pseudo_classes": m > 1 and images_fault(m, False, shape, tokens),
            "rotation": self.rotation and images_fault(1, True, shape, tokens),
            "self_supervised": self.self_supervised and images_fault(1, False, shape, tokens),
        }
        yield from (f"strategy.{k} {fault}: leave {k} out" for k, fault in asked.items() if fault)
        trains = ("contrastive", "self_supervised", "rotation")
        on = [name for name in trains if getattr(self, name)]
        if self.contrastive * are_images + self.self_supervised and one_view:
            yield (
                f"strategy.{on[0]} compares two views of an image, and the run draws one: add "
                "two-views to its augmentation, such as --augmentation crop,two-views"
            )
        if not features:
            yield "fscil needs a model with `features`: add that method, or give --model mlp"
        n = info.n_classes * m
        if self.etf and not 2 <= n <= neck:
            yield (
                f"strategy.etf needs a neck of as many numbers as there are classes and copies, "
                f"{n}, and it has {neck}: give strategy.neck={max(2, n)}"
            )
        if self.freeze and not neck and on:
            yield (
                f"strategy.{on[0]} trains features, and strategy.freeze keeps those of the model: "
                "give a strategy.neck to be trained, or leave freeze out"
            )
        if self.freeze and self.subnet and (self.etf or not neck):
            yield (
                "strategy.subnet tunes a part of the last block; with strategy.freeze that is the "
                "neck's, which must be there, and which etf trains as a whole: leave subnet out"
            )


def copies(x: Tensor, m: Copies) -> list[Tensor]:
    """Return m versions of images (B, C, H, W), the first of them as they are.

    Source: Song et al. 2023, "Learning with Fantasy: Semantic-Aware Virtual Contrastive Constraint
    for Few-Shot Class-Incremental Learning" (SAVC), whose code has 2 for CIFAR-100 and CUB and 12
    for miniImageNet: 2 is turned by 0 and 180 degrees, 4 by all quarters; 6 and 12 are those in
    three cyclic orders of the colours each.
    """
    shifts = (0, 1, 2) if m in (6, 12) else (0,)
    return [turned(x.roll(shift, 1) if shift else x, k) for k, shift in product(TURNS[m], shifts)]


def turned(x: Tensor, quarters: int) -> Tensor:
    """Return images (B, C, H, W) turned by some quarters; others than halves need square ones."""
    return x.rot90(quarters, (2, 3)) if quarters else x


def images_fault(m: int, quarters: bool, shape: tuple[int, ...], tokens: bool) -> str | None:
    """Return why inputs cannot be turned and recoloured, in a few words; None if they can.

    Args:
        m: copies, see :func:`copies`.
        quarters: whether they are turned by quarters for another reason.
        shape: of an input; a picture of one row, as counts of words have, is none.
        tokens: whether they are token ids.
    """
    if tokens or len(shape) != 3 or 1 in shape[1:]:
        return f"needs images, and inputs of shape {tuple(shape)} are none"
    if (quarters or m in (4, 12)) and shape[1] != shape[2]:
        return f"turns images by quarters, and those of shape {tuple(shape)} are not square"
    if m in (6, 12) and shape[0] != 3:
        return f"changes the order of three colours, and images have {shape[0]}"
    return None


def supervised_contrast(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, a scalar.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", Eq. 2: the mean over samples i of
    -1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t)), where P(i) are
    the others with the label of i. Samples without such others count nothing. With a label of its
    own for each sample and its second view it is the loss of SimCLR (Chen et al. 2020).

    Args:
        z: (n, width), each of unit length; the views of a sample one below the other in any order.
        labels: (n,).
        temperature: t.
    """
    alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similar = (z @ z.T / temperature).masked_fill(alone, -torch.inf)
    chances = similar.log_softmax(1).masked_fill(alone, 0.0)
    positive = (labels[:, None] == labels) & ~alone
    n = positive.sum(1)
    each = -(chances * positive).sum(1) / n.clamp(min=1)
    return each.sum() / (n > 0).sum().clamp(min=1)


def simplex(k: int, width: int, generator: torch.Generator) -> Tensor:
    """Return the vertices of a simplex (an equiangular tight frame), (k, width) of unit length.

    Source: Yang et al. 2023, "Neural Collapse Inspired Feature-Classifier Alignment for Few-Shot
    Class-Incremental Learning", Eq. 2: sqrt(k / (k - 1)) U (I - 11' / k), U (width, k) orthonormal
    by a QR decomposition of normal numbers. The cosine of any two is -1/(k - 1).

    Args:
        k: from 2 to `width`.
    """
    normal = torch.randn(width, k, generator=generator, device=generator.device)
    basis = torch.linalg.qr(normal.double()).Q
    vertices: Tensor = math.sqrt(k / (k - 1)) * (basis - basis.mean(1, keepdim=True))
    return vertices.T.float()


def dot_regression(cosines: Tensor) -> Tensor:
    """Return half the mean of (cosine - 1)^2, a scalar; Yang et al. 2023, Eq. 6.

    Args:
        cosines: of each feature and the prototype of its own class, (n,).
    """
    return (cosines - 1).square().mean() / 2
