"""Experience replay."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_platform import Batch, Experience, ReplayBuffer, Strategy, StreamInfo
from cl_platform.core.buffers import MemoryKind, make_memory


class Replay(Strategy):
    """Training on the new batch and samples of a memory together; subclasses make the memory.

    Args:
        memory_size: samples kept.
        memory_batch_size: samples drawn per step; None draws as many as the batch has.
    """

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = self.make_buffer(info)

    def make_buffer(self, info: StreamInfo) -> ReplayBuffer:
        """The empty memory."""
        return ReplayBuffer(self.memory_size, info)

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes)

    def loss(self, batch: Batch) -> Tensor:
        x, y, task = batch.x, batch.y, batch.task
        if self.buffer.seen:
            old = self.recall(batch)
            x, y = torch.cat([x, old.x]), torch.cat([y, old.y])
            task = None if task is None or old.task is None else torch.cat([task, old.task])
        return cross_entropy(self(x, task), y)

    def recall(self, batch: Batch) -> Batch:
        """The old samples that are trained on together with a batch."""
        return self.buffer.sample(self.memory_batch_size or len(batch))

    def after_step(self, batch: Batch) -> None:
        self.buffer.add(batch)


class ER(Replay):
    """Experience replay: each step trains on the new batch and as many samples from a memory.

    Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning", Algorithm 1;
    the loss is the mean cross-entropy over new and old samples together. As there, the memory also
    holds samples of the present experience. In several epochs samples are offered to it in each.

    Args:
        memory_size: samples kept.
        memory_batch_size: samples drawn per step; None draws as many as the batch has.
        memory: how it is shared out: a uniform ``reservoir``, the same number of every class seen
            (``balanced``), or the latest samples of every class (``ring``).
    """

    memory: MemoryKind = "reservoir"

    def make_buffer(self, info: StreamInfo) -> ReplayBuffer:
        return make_memory(self.memory, self.memory_size, info)
