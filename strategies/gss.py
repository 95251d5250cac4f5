"""Gradient-based sample selection."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from cl_platform import Batch, Chunk, ReplayBuffer, StreamInfo
from cl_platform.core.batch import together
from cl_platform.models.precision import comparing
from strategies.parts.gradients import loss_gradients
from strategies.parts.memory import Offering


class GSS(Offering):
    """GSS-greedy: a replay memory of samples whose gradients point in different directions.

    Source: Aljundi et al. 2019, "Gradient based sample selection for online continual learning",
    Algorithm 2. All samples of a batch are compared with the same random subset of the memory, and
    gradients are taken in evaluation mode.

    Args:
        memory_size: number of stored samples.
        memory_batch_size: samples replayed per step; None draws as many as the batch has.
        comparisons: samples of the memory that a new one is compared with.
        offer: see :class:`strategies.parts.memory.Offering`.
    """

    refuses = ("mixing",)  # gradients of single samples are compared
    task_free = True

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None
    comparisons: PositiveInt = 10

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = GreedyBuffer(self.memory_size, info, extra={"score": ()})

    def loss(self, batch: Batch) -> Tensor:
        if self.buffer.seen:
            batch = together([batch, self.buffer.sample(self.memory_batch_size or len(batch))])
        return super().loss(batch)

    def after_step(self, batch: Batch) -> None:
        if not self.offers(batch):
            return
        score = torch.full_like(batch.y, 0.1, dtype=torch.float32)
        if self.buffer.seen:  # the largest cosine of the gradient of each with those of old samples
            new, old = (
                normalize(torch.cat(list(loss_gradients(self, b.x, b.y, b.task))), dim=1)
                for b in (batch, self.buffer.sample(self.comparisons))
            )
            with comparing(score.device):
                score = 1 + (new @ old.T).amax(1).float()
        self.buffer.add(batch, score=score)


class GreedyBuffer(ReplayBuffer):
    """A memory that replaces samples by their scores: the lower, the more diverse."""

    def add(self, batch: Batch | Chunk, **extra: Tensor) -> None:
        assert isinstance(batch, Batch)  # scores are of gradients, one batch after the other
        self._check(extra)
        room, score = max(0, self.size - self.seen), extra["score"]
        if room:
            slots = torch.arange(self.seen, self.seen + min(room, len(batch)), device=score.device)
            self._write(slots, batch[:room], {"score": score[:room]})
        if len(batch) > room:
            slots = self._last_wins(self._replaced(score[room:]))
            self._write(slots, batch[room:], {"score": score[room:]})
        self.seen += len(batch)

    def _replaced(self, score: Tensor) -> Tensor:
        """Draw the row that each sample replaces, or `size` for none, (B,)."""
        stored = self.get_buffer("extra_score")[: self.size].clamp(min=1e-6)
        rows = torch.multinomial(stored, len(score), replacement=True, generator=self._generator)
        chance = stored[rows] / (stored[rows] + score.clamp(min=1e-6))
        replaces = (score < 1) & (self._uniform(len(score)) < chance)
        return torch.where(replaces, rows, self.size)
