"""Gradient-based sample selection."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from cl_platform import Batch, ReplayBuffer, StreamInfo
from strategies.er import Replay
from strategies.parts.gradients import loss_gradients


class GSS(Replay):
    """GSS-greedy: a replay memory of samples whose gradients point in different directions.

    Source: Aljundi et al. 2019, "Gradient based sample selection for online continual learning",
    Algorithm 2. All samples of a batch are compared with the same random subset of the memory, and
    gradients are taken in evaluation mode.

    Args:
        memory_size: samples kept.
        memory_batch_size: samples replayed per step; None draws as many as the batch has.
        comparisons: samples of the memory that a new one is compared with.
    """

    comparisons: PositiveInt = 10

    def make_buffer(self, info: StreamInfo) -> ReplayBuffer:
        return GreedyBuffer(self.memory_size, info, extra={"score": ()})

    def after_step(self, batch: Batch) -> None:
        if self.buffer.seen:
            score = 1 + self._largest_cosine(batch, self.buffer.sample(self.comparisons))
        else:
            score = torch.full_like(batch.y, 0.1, dtype=torch.float32)
        self.buffer.add(batch, score=score)

    def _largest_cosine(self, batch: Batch, old: Batch) -> Tensor:
        """The largest cosine of each new sample's gradient with those of old samples, (B,)."""
        new, kept = (
            normalize(torch.cat(list(loss_gradients(self, b.x, b.y, b.task))), dim=1)
            for b in (batch, old)
        )
        return (new @ kept.T).amax(1)


class GreedyBuffer(ReplayBuffer):
    """A memory that replaces samples by their scores: the lower, the more diverse."""

    def add(self, batch: Batch, **extra: Tensor) -> None:
        room, score = max(0, self.size - self.seen), extra["score"]
        if room:
            slots = torch.arange(self.seen, self.seen + min(room, len(batch)), device=score.device)
            self._write(slots, batch[:room], {"score": score[:room]})
        if len(batch) > room:
            slots = self._last_wins(self._replaced(score[room:]))
            self._write(slots, batch[room:], {"score": score[room:]})

    def _replaced(self, score: Tensor) -> Tensor:
        """The row that each sample takes over, or `size` for none, (B,)."""
        kept = self.get_buffer("extra_score")[: self.size].clamp(min=1e-6)
        rows = torch.multinomial(kept, len(score), replacement=True, generator=self._generator)
        chance = kept[rows] / (kept[rows] + score.clamp(min=1e-6))
        taken = (score < 1) & (self._uniform(len(score)) < chance)
        return torch.where(taken, rows, self.size)
