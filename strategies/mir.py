"""Maximally interfered retrieval."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import PositiveInt
from torch import Tensor

from cl_platform import Batch, Chunk
from cl_platform.core.batch import together
from strategies.er import ER
from strategies.parts.gradients import frozen_statistics, trainable


class MIR(ER):
    """Experience replay of the samples whose loss a step on the new batch alone would raise most.

    Source: Aljundi et al. 2019, "Online Continual Learning with Maximally Interfered Retrieval",
    Algorithm 1 (ER-MIR, score s-MI-1: loss after the virtual step minus loss now). The virtual step
    is plain gradient descent at the optimizer's learning rate. The memory may hold samples of the
    present experience.

    Args:
        candidates: distinct samples drawn from the memory; those with the largest interference
            are replayed. The other arguments as for ``er``.
    """

    candidates: PositiveInt = 50

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return chunk.batches()  # what is replayed depends on the weights

    def loss(self, batch: Batch) -> Tensor:
        if self.buffer.seen:
            batch = together([batch, self.recall(batch)])
        return super().loss(batch)

    def after_step(self, batch: Batch) -> None:
        if self.offers(batch):
            self.buffer.add(batch)

    def recall(self, batch: Batch) -> Batch:
        """Choose the stored samples to be learned together with a batch."""
        n = self.memory_batch_size or len(batch)
        old = self.buffer.distinct(max(n, self.candidates))
        return old[self.interference(batch, old).topk(min(n, len(old))).indices]

    def interference(self, batch: Batch, old: Batch) -> Tensor:
        """Compute how much a step on the new batch raises the loss of each old sample, (B,)."""
        rates = {p: float(g["lr"]) for g in self.optimizer.param_groups for p in g["params"]}
        parameters = trainable(self.model)
        with frozen_statistics(self.model), torch.enable_grad():
            loss = self.cross_entropy(self(batch.x, batch.task), batch)
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            with torch.no_grad():
                now = self.restrict(self.model(old.x), old.task)
                own = [p.data for p in parameters]
                try:
                    for p, g in zip(parameters, gradients, strict=True):
                        p.data = torch.sub(p, g, alpha=rates[p])
                    then = self.restrict(self.model(old.x), old.task)
                finally:
                    for p, values in zip(parameters, own, strict=True):
                        p.data = values
        before: Tensor = self.cross_entropy(now, old, reduction="none")
        return self.cross_entropy(then, old, reduction="none") - before
