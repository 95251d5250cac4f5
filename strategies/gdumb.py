"""Greedy sampler and dumb learner."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from cl_platform import Batch, Chunk, ClassBalancedBuffer, Experience, StreamInfo
from cl_platform.engine.training import batch_sizes
from cl_platform.errors import BadInput
from strategies.parts.memory import Offering


class GDumb(Offering):
    """GDumb: collect a class-balanced memory, then train a new model on the memory alone.

    Source: Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual
    Learning", Section 3; the learning rate is annealed by cosine from the optimizer's to a
    hundredth of it, with restarts after 1, 3, 7, ... passes. Here a full class goes on as a
    reservoir (there the first samples stay); there is no CutMix, no warm-up pass and no clipping of
    gradients, unless the run has them. Epochs of the run after the first one only
    cost time: give ``--epochs 1``.

    Args:
        memory_size: number of stored samples, at least one for every class.
        passes: epochs over the memory at the end of each experience.
        memory_batch_size: samples of a batch of the memory.
        offer: see :class:`strategies.parts.memory.Offering`.
    """

    # It trains at the end of an experience, in a loop and with a schedule of its own.
    refuses = ("accumulate", "early_stopping", "optimizer.groups", "pacing")

    memory_size: PositiveInt = 1000
    passes: PositiveInt = 50
    memory_batch_size: PositiveInt = 16

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = ClassBalancedBuffer(self.memory_size, info)
        self.shuffle = info.rng.generator("gdumb/shuffle")

    def begin_experience(self, experience: Experience) -> None:
        self.model = self.info.build_model()
        self.model.train()
        self.buffer.make_room(experience.classes)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        if self.offers(chunk):
            self.buffer.add(chunk)
        return chunk.batches()

    def training_step(self, batch: Batch) -> Tensor:
        if "initial_lr" in self.optimizer.param_groups[0]:  # torch's mark of a schedule
            raise BadInput("gdumb anneals its learning rate itself: leave the schedule out")
        return torch.zeros((), device=batch.y.device)

    def end_experience(self, experience: Experience) -> None:
        lr = float(self.optimizer.param_groups[0]["lr"])
        schedule = CosineAnnealingWarmRestarts(self.optimizer, 1, T_mult=2, eta_min=lr / 100)
        rows = self.buffer.rows()
        for _ in range(self.passes):
            order = torch.randperm(len(rows), generator=self.shuffle, device=rows.device)
            for part in order.split(batch_sizes(len(order), self.memory_batch_size)):
                old = self.buffer.read(rows[part])
                self.minimise(self.cross_entropy(self(old.x, old.task), old))
            schedule.step()
