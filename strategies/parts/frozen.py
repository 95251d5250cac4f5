"""A frozen transformer with a classifier: the common base of prompts and low-rank adapters."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.config.registry import name_of
from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone
from cl_platform.models.precision import in_float32


class FrozenBackbone(Strategy):
    """A method around a pretrained transformer that stays as it is; a linear `head` is trained.

    Subclasses add parameters in :meth:`setup` and compute in :meth:`forward` what the head sees.
    The frozen model's own feature of an input is its `query`.

    Args:
        train_mask: compare the classes of the present experience alone in the loss, the logits of
            all others being -inf, as the papers of these methods do. It removes competition between
            experiences from the gradient, which is a large part of what they gain. With a single
            class in an experience nothing would be left to compare: None, the default, masks unless
            the stream has such an experience, and true is refused there.
    """

    takes_features = True
    freezes_model = True
    clip_norm: ClassVar[float | None] = 1.0

    train_mask: bool | None = None

    def check(self, task_classes: Tensor) -> None:
        if self.train_mask and _fewest(task_classes) < 2:
            raise BadInput(
                "strategy.train_mask=true compares the classes of an experience with each other, "
                "but the stream has an experience of a single class, which would learn nothing; "
                "leave train_mask out, or give false"
            )

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.masks = _fewest(info.task_classes) > 1 if self.train_mask is None else self.train_mask
        model = info.frozen_model()
        if not isinstance(model, Backbone):
            method = name_of("strategy", type(self))
            raise BadInput(
                f"{method} needs a transformer; {getattr(model, 'title', type(model).__name__)} is "
                "none: give --model minilm, vit, hybrid-vit or small-vit, or name the module with "
                "the blocks of your own, model.blocks=NAME"
            )
        self.model: Backbone = model
        self.head = self.new_head()
        self.present = torch.ones(info.n_classes, dtype=torch.bool, device=info.device)

    def new_head(self) -> nn.Linear:
        """Build a classifier of the model's features."""
        head = nn.Linear(self.model.width, self.info.n_classes, device=self.info.device)
        nn.init.zeros_(head.weight)  # classes that were never trained have equal logits
        nn.init.zeros_(head.bias)
        return head

    def begin_experience(self, experience: Experience) -> None:
        self.present = torch.zeros_like(self.present)
        self.present[list(experience.classes)] = True

    def query(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return the frozen model's features of inputs, (B, width); compute them unless given."""
        if features is not None:
            return features
        with torch.no_grad():
            return self.model.features(x).float()

    def classify(self, feature: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the logits (B, n_classes) of what the head sees, (B, width); see `restrict`."""
        return self.restrict(in_float32(self.head, feature), task)

    def cross_entropy(
        self,
        logits: Tensor,
        labels: Batch | Tensor,
        reduction: Literal["mean", "none"] = "mean",
    ) -> Tensor:
        """Return the cross-entropy, under `train_mask` between the present classes only."""
        if self.masks:
            logits = logits.masked_fill(~self.present, -torch.inf)
        return super().cross_entropy(logits, labels, reduction)

    def loss(self, batch: Batch) -> Tensor:
        return self.cross_entropy(self(batch.x, batch.task, batch.features), batch)


def _fewest(task_classes: Tensor) -> int:
    """Return the smallest number of classes of an experience, of (n_tasks, n_classes) bool."""
    return int(task_classes.sum(1).min())
