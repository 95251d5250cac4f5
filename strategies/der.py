"""Dark experience replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from cl_platform import Batch, Chunk, Experience, StreamInfo
from cl_platform.core.buffers import SHARED_BY_SAMPLES, MemoryKind, make_memory
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

    @property
    def task_free(self) -> bool:  # type: ignore[override]
        return self.memory in SHARED_BY_SAMPLES

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        extra = {"logits": (info.n_classes,)}
        self.buffer = make_memory(self.memory, self.memory_size, info, extra)

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        n, offers = self.memory_batch_size, self.offers(chunk)
        return self.buffer.replay(chunk, n, self.draws, offers, plain=1)

    def loss(self, batch: Batch) -> Tensor:
        return self._loss_and_logits(batch, self._parts(batch))[0]

    def training_step(self, batch: Batch) -> Tensor:
        new, *old = self._parts(batch)
        loss, logits = self._loss_and_logits(batch, [new, *old])
        if self.offers(batch):
            own = logits if batch.target is None else self._logits_unmixed(new)
            self.buffer.store(new, logits=own)
        return self.minimise(loss)

    def _parts(self, batch: Batch) -> list[Batch]:
        """Return the new samples of a batch, and those of each draw from the memory."""
        n = batch.replayed // self.draws
        return batch.split([len(batch) - batch.replayed, *[n] * (self.draws if n else 0)])

    @torch.no_grad()
    def _logits_unmixed(self, batch: Batch) -> Tensor:
        """Return the logits (B, n_classes) of the samples as they are stored."""
        with frozen_statistics(self.model):
            logits: Tensor = self.model(self.info.preprocess(batch.raw))
            return logits

    def _loss_and_logits(self, batch: Batch, parts: list[Batch]) -> tuple[Tensor, Tensor]:
        (new, *old), sizes = parts, [*map(len, parts)]
        logits, *replayed = self.model(batch.x).split(sizes)
        loss = self.cross_entropy(self.restrict(logits, new.task), new)
        if old:
            loss = loss + self.replay_loss(old, replayed)
        return loss, logits

    def replay_loss(self, old: list[Batch], logits: list[Tensor]) -> Tensor:
        """Return the loss of the drawn batches, given the model's present logits of each."""
        stored = self.buffer.stored("logits", old[0])
        # Classes that had not arrived then have no stored logit, and none to keep.
        stored = torch.where(stored == torch.inf, logits[0].detach(), stored)
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
