"""One prompt for all experiences."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from cl_platform import Batch, StreamInfo
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.prefixes import Length, check_blocks, prefixes


class OnePrompt(FrozenBackbone):
    """A general and an expert prompt as prefixes, which all experiences share and train on.

    Source: Huang et al. 2024, "OVOR: OnePrompt with Virtual Outlier Regularization for
    Rehearsal-Free Class-Incremental Learning", section 3: DualPrompt without selection, so without
    keys and without a query. Lengths count keys and values together: 107,520 numbers at a width of
    768. Prompts start uniform in [0, 1) and gradients are not clipped, as in the authors' code;
    there the head starts at random.

    Args:
        general_length, expert_length: tokens of the prompts at each of their blocks.
        general_blocks, expert_blocks: where they are, from 0.
    """

    takes_features: ClassVar[bool] = False

    general_length: Length = 10
    general_blocks: tuple[NonNegativeInt, ...] = (0, 1)
    expert_length: Length = 40
    expert_blocks: tuple[NonNegativeInt, ...] = (2, 3, 4)
    clip: PositiveFloat | None = None

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        all_blocks = (*self.general_blocks, *self.expert_blocks)
        check_blocks("general_blocks and expert_blocks", all_blocks, self.model)
        self.general = self.prompt(len(self.general_blocks), self.general_length)
        self.expert = self.prompt(len(self.expert_blocks), self.expert_length)

    def prompt(self, n_blocks: int, length: int) -> nn.Parameter:
        return nn.Parameter(torch.rand(n_blocks, length, self.model.width, device=self.info.device))

    def represent(self, x: Tensor) -> Tensor:
        """What the head sees of inputs (B, ...): the feature under the prompts, (B, width)."""
        general = prefixes(self.general, self.general_blocks)
        expert = prefixes(self.expert, self.expert_blocks)
        return self.model.pool(self.model.encode(self.model.embed(x), general | expert))

    def loss(self, batch: Batch) -> Tensor:
        return self.cross_entropy(self(batch.x, batch.task), batch.y)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.classify(self.represent(x), task)
