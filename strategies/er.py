"""Experience replay."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_platform import Batch, ClassBalancedBuffer, Experience, ReplayBuffer, Strategy, StreamInfo


class ER(Strategy):
    """Experience replay: each step trains on the new batch and as many samples from a memory.

    Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning", Algorithm 1;
    the loss is the mean cross-entropy over new and old samples together. As there, the memory also
    holds samples of the present experience.

    Args:
        memory_size: samples kept.
        memory_batch_size: samples drawn per step; None draws as many as the batch has.
        balanced: keep the same number of samples of every class instead of a uniform sample.
    """

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None
    balanced: bool = False

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        buffer = ClassBalancedBuffer if self.balanced else ReplayBuffer
        self.memory = buffer(self.memory_size, info)

    def begin_experience(self, experience: Experience) -> None:
        self.memory.make_room(experience.classes)

    def loss(self, batch: Batch) -> Tensor:
        x, y, task = batch.x, batch.y, batch.task
        if self.memory.seen:
            old = self.memory.sample(self.memory_batch_size or len(batch))
            x, y = torch.cat([x, old.x]), torch.cat([y, old.y])
            task = None if task is None or old.task is None else torch.cat([task, old.task])
        return cross_entropy(self(x, task), y)

    def after_step(self, batch: Batch) -> None:
        self.memory.add(batch)
