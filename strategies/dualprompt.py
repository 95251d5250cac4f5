"""DualPrompt."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cl_platform import Batch, Experience, StreamInfo
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.prefixes import check_blocks, prefixes


class DualPrompt(FrozenBackbone):
    """A general prompt that all experiences share, and an expert prompt for each of them.

    Source: Wang et al. 2022, "DualPrompt: Complementary Prompting for Rehearsal-free Continual
    Learning". Prompts are prefixes of keys and values, so the head sees the model's usual feature.
    An experience trains its own expert and the general prompt, and pulls its expert's key to its
    queries: cross-entropy + `pull` * (1 - cos). At test time every sample uses the expert whose key
    is nearest to its query.

    The defaults are those of the authors' code for CIFAR-100. That code chooses one expert for a
    whole batch; here every sample has its own, among the experiences learned so far. The most
    copied port of it mixes keys with values and samples with each other, by a reshape where axes
    must be moved.

    Lengths count tokens as the authors' code does: a prompt of length L at a block is L tokens
    before the keys and L others before the values, 2 L width numbers. (CODA-Prompt counts both
    together.) With width 768 and ten experiences the prompts and keys of the defaults are 253,440
    numbers.

    Args:
        general_length: tokens of the general prompt before the keys, and as many before the values.
        expert_length: the same for an expert; 20 for ImageNet-R in the authors' code.
        general_blocks: blocks of the general prompt, from 0; empty for none.
        expert_blocks: blocks of the experts.
        pull: weight of 1 - cos in the loss.
        copy_experts: start an expert as a copy of the one before it, in the order of learning
            ("shared prompt pool" in the authors' code).
    """

    general_length: PositiveInt = 5
    expert_length: PositiveInt = 5
    general_blocks: tuple[NonNegativeInt, ...] = (0, 1)
    expert_blocks: tuple[NonNegativeInt, ...] = (2, 3, 4)
    pull: NonNegativeFloat = 1.0
    copy_experts: bool = True

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        used = (*self.general_blocks, *self.expert_blocks)
        check_blocks("general_blocks + expert_blocks", used, self.model)
        n, width = info.n_experiences, self.model.width
        self.general = self._uniform(len(self.general_blocks), 2 * self.general_length, width)
        # One parameter each: without a gradient, weight decay leaves it as it is.
        expert = (len(self.expert_blocks), 2 * self.expert_length, width)
        self.experts = nn.ParameterList(self._uniform(*expert) for _ in range(n))
        self.keys = nn.ParameterList(self._uniform(width) for _ in range(n))
        self.known = nn.Buffer(torch.zeros(n, dtype=torch.bool, device=info.device))
        self.known[0] = True  # used before anything is learned

    def _uniform(self, *shape: int) -> nn.Parameter:
        """Draw a parameter in [0, 0.01), as in the authors' code."""
        return nn.Parameter(0.01 * torch.rand(shape, device=self.info.device))

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        own = self.index
        self.known[own] = True
        if self.copy_experts and own > 0 and not self.returning:
            with torch.no_grad():
                self.experts[own].copy_(self.experts[own - 1])

    def represent(self, x: Tensor, experts: Tensor) -> Tensor:
        """Compute what the head sees, (B, width).

        Args:
            x: inputs (B, ...).
            experts: the prompt of one expert for all samples, (n_blocks, 2 L, width), or of one for
                each sample, (B, n_blocks, 2 L, width).
        """
        general = prefixes(self.general, self.general_blocks)
        attached = general | prefixes(experts, self.expert_blocks)
        return self.model.pool(self.model.encode(self.model.embed(x), attached))

    def choose(self, query: Tensor) -> Tensor:
        """Choose an expert for each query (B, width), by the index of its experience, (B,)."""
        keys = torch.stack([*self.keys])
        similarity = cosine_similarity(query[:, None], keys, dim=-1)
        return similarity.masked_fill(~self.known, -torch.inf).argmax(1)

    def loss(self, batch: Batch) -> Tensor:
        query = self.query(batch.x, batch.features)
        logits = self.classify(self.represent(batch.x, self.experts[self.index]), batch.task)
        distance = 1 - cosine_similarity(query, self.keys[self.index], dim=-1)
        return self.cross_entropy(logits, batch) + self.pull * distance.mean()

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        experts = torch.stack([*self.experts])[self.choose(self.query(x, features))]
        return self.classify(self.represent(x, experts), task)
