"""A strategy without a network: the learner that the stream ``chain`` is made for.

clp run --stream chain --strategy examples/competence.py:Competence --curriculum teacher:alp \\
    --set curriculum.share=0.01 curriculum.passes=2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo


class Competence(Strategy):
    """Gains one level of an experience with each visit, if it is ready for it.

    Args:
        ready: share of the levels of the experience before that it must have mastered.
    """

    levels: int = 100
    ready: float = 0.75

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.mastered = nn.Buffer(torch.zeros(info.n_experiences, device=info.device))

    def begin_experience(self, experience: Experience) -> None:
        own = experience.task
        if own == 0 or self.mastered[own - 1] >= self.ready * self.levels:
            self.mastered[own] = (self.mastered[own] + 1).clamp(max=self.levels)

    def training_step(self, batch: Batch) -> Tensor:
        return torch.zeros((), device=batch.x.device)  # the visit is what it learns by

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        experience, level, label = x.long().unbind(1)
        known = level < self.mastered[experience]
        return nn.functional.one_hot(torch.where(known, label, 1 - label), 2).float()
