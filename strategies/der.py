"""Dark experience replay."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.core.buffers import MemoryKind, make_memory
from strategies.parts.gradients import frozen_statistics
from strategies.parts.memory import Offering


class DER(Offering):
    """Dark experience replay: a penalty on changes of the logits that old samples were stored with.

    Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning", Algorithm 1. As
    in the authors' code the squared distance of the logits is averaged over classes (the paper sums
    it), and the stored logits are those before the step. New and old samples share one forward
    pass.

    Args:
        memory_size: number of stored samples, each with its logits.
        memory_batch_size: samples drawn per term and step; None draws as many as the batch has.
        memory: how it is shared out, see ``er``.
        alpha: weight of the distance to the stored logits.
        offer: see :class:`strategies.parts.memory.Offering`; ``every-epoch`` as in the authors'
            code, since logits of the first epoch are worth little.
    """

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None
    memory: MemoryKind = "reservoir"
    alpha: NonNegativeFloat = 0.3
    offer: Literal["once", "every-epoch"] = "every-epoch"

    draws = 1  # batches from the memory at each step

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        extra = {"logits": (info.n_classes,)}
        self.buffer = make_memory(self.memory, self.memory_size, info, extra)

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes)

    def loss(self, batch: Batch) -> Tensor:
        return self._loss_and_logits(batch)[0]

    def training_step(self, batch: Batch) -> Tensor:
        loss, logits = self._loss_and_logits(batch)
        if self.offers(batch):
            own = logits if batch.target is None else self._logits_unmixed(batch)
            self.buffer.add(batch, logits=own)
        return self.minimise(loss)

    @torch.no_grad()
    def _logits_unmixed(self, batch: Batch) -> Tensor:
        """Return the logits (B, n_classes) of the samples as they are stored."""
        with frozen_statistics(self.model):
            logits: Tensor = self.model(self.info.preprocess(batch.raw))
            return logits

    def _loss_and_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        n = self.memory_batch_size or len(batch)
        draws = range(self.draws if self.buffer.seen else 0)
        # The first are compared with the logits stored of each sample, which is not mixed there.
        old = [self.buffer.sample(n, mixing=i > 0) for i in draws]
        outputs = self.model(torch.cat([batch.x, *(o.x for o in old)]))
        logits, *replayed = outputs.split([len(batch), *(len(o) for o in old)])
        loss = self.cross_entropy(self.restrict(logits, batch.task), batch)
        if old:
            loss = loss + self.replay_loss(old, replayed)
        return loss, logits

    def replay_loss(self, old: list[Batch], logits: list[Tensor]) -> Tensor:
        """Return the loss of the drawn batches, given the model's present logits of each."""
        stored = old[0].extra["logits"]
        # Classes that had not arrived then have no stored logit, and none to keep.
        stored = torch.where(stored.isinf(), logits[0].detach(), stored)
        return self.alpha * mse_loss(logits[0], stored)


class DERPlusPlus(DER):
    """DER++: dark experience replay, and cross-entropy on a second draw from the memory.

    Source: Buzzega et al. 2020, Algorithm 2.

    Args:
        beta: weight of the cross-entropy of old samples; the others as for ``der``.
    """

    beta: NonNegativeFloat = 0.5

    draws = 2

    def replay_loss(self, old: list[Batch], logits: list[Tensor]) -> Tensor:
        labelled = self.cross_entropy(self.restrict(logits[1], old[1].task), old[1])
        return super().replay_loss(old, logits) + self.beta * labelled
