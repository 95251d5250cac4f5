"""Learning to Prompt."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cl_platform import StreamInfo
from cl_platform.errors import say_once
from strategies.parts.pool import Pool


class L2P(Pool):
    """A pool of prompts; every input is preceded by those whose keys are nearest to its query.

    Source: Wang et al. 2022, "Learning to Prompt for Continual Learning". Prompts come before all
    tokens and have no position; the head sees the mean of their outputs. Prompts and keys start
    uniform in [0, 0.01), the head at zero, as in the authors' code. Selection is by sample, in
    training and at test time; the vote of a whole batch in that code is :class:`L2PBatchVote`.

    Args:
        length: tokens of a prompt.
    """

    length: PositiveInt = 5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        shape = (self.pool_size, self.length, self.model.width)
        self.prompts = nn.Parameter(0.01 * torch.rand(shape, device=info.device))

    def items(self) -> list[nn.Parameter]:
        return [self.prompts]

    def represent(self, x: Tensor, chosen: Tensor) -> Tensor:
        prompts = self.prompts[chosen].flatten(1, 2)
        tokens = self.model.encode(self.model.embed(x).prepend(prompts))
        return tokens.values[:, : prompts.shape[1]].mean(1)


class L2PBatchVote(L2P):
    """L2P as in its authors' code: all samples of a batch use the prompts it selects most often.

    This holds at test time as well, so that a prediction depends on the other samples of the batch:
    batches with samples of one experience only reveal which one it is. For comparison with
    published numbers.
    """

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        say_once(
            "l2p-batch-vote: predictions depend on the other samples of a batch, and so does its "
            "accuracy; use l2p for numbers to trust"
        )

    def choose(self, similarity: Tensor) -> Tensor:
        votes = super().choose(similarity).flatten().bincount(minlength=self.pool_size)
        elected = votes.topk(self.selected).indices
        return elected.expand(len(similarity), -1)
