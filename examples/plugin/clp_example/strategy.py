"""Replay whose share of the loss grows with what there is to forget."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cl_platform import Batch, Chunk, ReplayBuffer, Strategy, StreamInfo


class CalmReplay(Strategy):
    """Experience replay; old samples weigh more with each experience.

    Args:
        memory_size: number of stored samples.
        growth: weight of the memory loss per experience learned before.
    """

    memory_size: PositiveInt = 100
    growth: NonNegativeFloat = 0.5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.memory = ReplayBuffer(self.memory_size, info)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return self.memory.replay(chunk, offer=chunk.epoch == 0)  # each sample once

    def loss(self, batch: Batch) -> Tensor:
        new, old = batch.new, batch.old
        loss = self.cross_entropy(self(new.x, new.task), new)
        if len(old):
            weight = self.growth * self.index
            loss = loss + weight * self.cross_entropy(self(old.x, old.task), old)
        return loss
