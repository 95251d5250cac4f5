"""Low-rank adapters in subspaces that are orthogonal to earlier ones."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.models.precision import comparing
from strategies.lora import Adapted, each
from strategies.parts.adapters import Updates, summed


class OLoRA(Adapted):
    """New adapters for every experience, orthogonal to earlier ones, which stay; all are added up.

    Source: Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning":
    the loss is the cross-entropy plus ``strength`` times L_orth, the sum over earlier experiences
    and projections of the squared entries of ``down_earlier down_now'``. Rank, alpha and strength
    are those of the authors' code, which sums absolute values instead (`overlap`); its dropout and
    its penalty on the norm of the new factors are omitted. The head is shared.

    Args:
        strength: weight of the penalty.
        overlap: ``squared`` entries as in the paper, ``absolute`` ones as in the authors' code.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 32.0
    strength: NonNegativeFloat = 0.5
    overlap: Literal["squared", "absolute"] = "squared"

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        # In the order of learning.
        self.adapters = nn.ModuleList(self.new_adapters() for _ in range(info.n_experiences))

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.adapters.requires_grad_(False)
        self.adapters[self.index].requires_grad_(True)
        if not self.returning:
            each(self.adapters)[self.index].start()

    def updates(self) -> Updates:
        """Return the sum of all updates learned so far."""
        return summed([a.updates() for a in each(self.adapters)[: self.index + 1]])

    def penalty(self) -> Tensor:
        """Return the overlap of the present adapters with earlier ones, a scalar."""
        *earlier, now = [a.down for a in each(self.adapters)[: self.index + 1]]
        with comparing(now.device):
            products = [(down @ now.mT).flatten() for down in earlier]
        overlaps = torch.cat([now.new_zeros(1), *products])
        return (overlaps.abs() if self.overlap == "absolute" else overlaps.square()).sum()

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) + self.strength * self.penalty()

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        return self.classify(self.adapted(x, self.updates()), task)
