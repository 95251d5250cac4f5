"""A pool with keys: every input uses the items whose keys are nearest to its query."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.errors import BadInput
from cl_platform.models.precision import comparing
from strategies.parts.frozen import FrozenBackbone


class Pool(FrozenBackbone):
    """Selection as in L2P of any kind of items (prompts, low-rank updates).

    Source: Wang et al. 2022, "Learning to Prompt for Continual Learning", eqs. 3 to 5: the loss is
    the cross-entropy minus `pull` times the cosines between a query and the keys it selected,
    summed over these and averaged over the batch.

    Args:
        pool_size: items in the pool.
        selected: number of them that an input uses.
        pull: weight of the cosines.
        item_mask: in training, the t-th experience uses items ``(t-1) selected`` to ``t selected``
            whatever its queries, as long as there are any ("prompt mask" in the authors' code,
            where it replaces the table of frequencies of the paper).
        copy_items: under `item_mask`, items start as copies of those of the experience before
            ("shared prompt pool" there).
    """

    pool_size: PositiveInt = 10
    selected: PositiveInt = 5
    pull: NonNegativeFloat = 0.5
    item_mask: bool = False
    copy_items: bool = False

    @property
    def task_free(self) -> bool:  # type: ignore[override]
        return not (self.train_mask or self.item_mask)

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if self.selected > self.pool_size:
            raise BadInput(
                f"strategy.selected={self.selected} of pool_size={self.pool_size}: "
                f"give 1 to {self.pool_size}"
            )
        shape = (self.pool_size, self.model.width)
        self.keys = nn.Parameter(0.01 * torch.rand(shape, device=info.device))
        # Uses of each item by each experience, in the order of learning.
        self.usage = nn.Buffer(torch.zeros(info.n_experiences, self.pool_size, device=info.device))

    @abstractmethod
    def items(self) -> list[nn.Parameter]:
        """Return the parameters whose first axis is the pool, except the keys."""

    @abstractmethod
    def represent(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Compute what the head sees of inputs (B, ...) with the items `chosen`, (B, selected)."""

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        own = self.own_items() if self.item_mask and self.copy_items else None
        if own is not None and own.start > 0 and not self.returning:
            with torch.no_grad():
                for values in self.items():
                    values[own] = values[own.start - self.selected : own.start].clone()

    def own_items(self) -> slice | None:
        """Return the items of the present experience under `item_mask`, None if there are none."""
        start = self.index * self.selected
        end = start + self.selected
        return slice(start, end) if end <= self.pool_size else None

    def similarity(self, query: Tensor) -> Tensor:
        """Return the cosines (B, pool_size) between queries (B, width) and keys."""
        with comparing(query.device):
            return normalize(query, dim=1) @ normalize(self.keys, dim=1).T

    def choose(self, similarity: Tensor) -> Tensor:
        """Choose the items that each sample uses, (B, selected)."""
        return similarity.topk(self.selected, dim=1).indices

    def loss(self, batch: Batch) -> Tensor:
        similarity = self.similarity(self.query(batch.x, batch.features))
        own = self.own_items() if self.item_mask else None
        if own is None:
            chosen = self.choose(similarity)
        else:
            items = torch.arange(own.start, own.stop, device=similarity.device)
            chosen = items.expand(len(similarity), -1)
        logits = self.classify(self.represent(batch.x, chosen), batch.task)
        nearness = similarity.gather(1, chosen).sum(1).mean()
        return self.cross_entropy(logits, batch) - self.pull * nearness

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        chosen = self.choose(self.similarity(self.query(x, features)))
        return self.classify(self.represent(x, chosen), task)

    def end_experience(self, experience: Experience) -> None:
        if self.info.online:  # the data were seen, and learning goes on without these numbers
            return
        for batch in self.batches(experience):
            with torch.no_grad():
                chosen = self.choose(self.similarity(self.query(batch.x, batch.features)))
            self.usage[self.index] += chosen.flatten().bincount(minlength=self.pool_size)

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return each item's share of all uses by the samples of the last experience."""
        used = self.usage[self.index]
        if not used.any():  # not counted: see end_experience
            return {}
        return {"pool_usage": (used / used.sum()).tolist()}
