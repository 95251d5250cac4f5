"""One prompt for all experiences."""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from cl_platform import Batch, StreamInfo
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.prefixes import Length, check_blocks, prefixes


class OnePrompt(FrozenBackbone):
    """A general and an expert prompt as prefixes, which all experiences share and train.

    Source: Huang et al. 2024, "OVOR: OnePrompt with Virtual Outlier Regularization for
    Rehearsal-Free Class-Incremental Learning", section 3: DualPrompt without selection, so without
    keys and without a query. Lengths count keys and values together: 107,520 numbers at a width of
    768. Prompts start uniform in [0, 1) and gradients are not clipped, as in the authors' code,
    whose head starts at random.

    Args:
        general_length, expert_length: tokens of the prompts at each of their blocks.
        general_blocks, expert_blocks: their blocks, from 0.
    """

    takes_features = False
    clip_norm = None

    general_length: Length = 10
    general_blocks: tuple[NonNegativeInt, ...] = (0, 1)
    expert_length: Length = 40
    expert_blocks: tuple[NonNegativeInt, ...] = (2, 3, 4)

    @property
    def task_free(self) -> bool:  # type: ignore[override]
        return not self.train_mask

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        all_blocks = (*self.general_blocks, *self.expert_blocks)
        check_blocks("general_blocks and expert_blocks", all_blocks, self.model)
        general = (len(self.general_blocks), self.general_length, self.model.width)
        expert = (len(self.expert_blocks), self.expert_length, self.model.width)
        self.general = nn.Parameter(torch.rand(general, device=info.device))
        self.expert = nn.Parameter(torch.rand(expert, device=info.device))

    def represent(self, x: Tensor) -> Tensor:
        """Return the feature (B, width) of inputs (B, ...) under the prompts."""
        general = prefixes(self.general, self.general_blocks)
        expert = prefixes(self.expert, self.expert_blocks)
        return self.model.pool(self.model.encode(self.model.embed(x), general | expert))

    def loss(self, batch: Batch) -> Tensor:
        return self.cross_entropy(self(batch.x, batch.task), batch)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.classify(self.represent(x), task)
