"""Experience replay."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.core.buffers import MemoryKind, make_memory
from strategies.parts.memory import Offering


class ER(Offering):
    """Experience replay: each step trains on the new batch and as many samples from a memory.

    Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning", Algorithm 1;
    the loss is the mean cross-entropy over new and old samples together. As there, the memory also
    holds samples of the present experience.

    Args:
        memory_size: number of stored samples.
        memory_batch_size: samples drawn per step; None draws as many as the batch has.
        memory: how it is shared out: a uniform ``reservoir``, the same number of every class seen
            (``balanced``), or the latest samples of every class (``ring``).
        offer: see :class:`strategies.parts.memory.Offering`.
    """

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None
    memory: MemoryKind = "reservoir"

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = make_memory(self.memory, self.memory_size, info)

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes)

    def loss(self, batch: Batch) -> Tensor:
        if self.buffer.seen:
            batch = joined(batch, self.recall(batch))
        return super().loss(batch)

    def recall(self, batch: Batch) -> Batch:
        """Draw the stored samples to be learned together with a batch."""
        return self.buffer.sample(self.memory_batch_size or len(batch))

    def after_step(self, batch: Batch) -> None:
        if self.offers(batch):
            self.buffer.add(batch)


def joined(new: Batch, old: Batch) -> Batch:
    """Return one batch of the samples of both, new ones first."""

    def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    x, y, raw = (torch.cat(pair) for pair in ((new.x, old.x), (new.y, old.y), (new.raw, old.raw)))
    target, x2 = both(new.target, old.target), both(new.x2, old.x2)
    return Batch(x, y, both(new.task, old.task), raw, target=target, x2=x2)
