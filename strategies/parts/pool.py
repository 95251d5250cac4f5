"""Pools with keys: every input uses the items whose keys are nearest to its query."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.errors import BadInput
from strategies.parts.frozen import FrozenBackbone


class Pool(FrozenBackbone):
    """Selection as in L2P, whatever the items of the pool are (prompts, low-rank updates).

    Source: Wang et al. 2022, "Learning to Prompt for Continual Learning", eqs. 3 to 5: the loss is
    the cross-entropy minus `pull` times the cosines between a query and the keys it selected,
    summed over these and averaged over the batch.

    Args:
        pool_size: items in the pool.
        selected: how many of them an input uses.
        pull: weight of the cosines.
        item_mask: in training, the t-th experience uses items ``(t-1) selected`` to ``t selected``
            whatever its queries, as long as there are some ("prompt mask" in the authors' code,
            where it stands for the table of frequencies of the paper).
        copy_items: under `item_mask`, items start as copies of those of the experience before
            ("shared prompt pool" there).
    """

    pool_size: PositiveInt = 10
    selected: PositiveInt = 5
    pull: NonNegativeFloat = 0.5
    item_mask: bool = False
    copy_items: bool = False

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if self.selected > self.pool_size:
            raise BadInput(
                f"strategy.selected={self.selected} of pool_size={self.pool_size}: "
                "select as many as there are, or fewer"
            )
        shape = (self.pool_size, self.model.width)
        self.keys = nn.Parameter(0.01 * torch.rand(shape, device=info.device))
        usage = torch.zeros(info.n_experiences, self.pool_size, device=info.device)
        self.usage = nn.Buffer(usage)  # of each item by the experiences in the order of learning

    @abstractmethod
    def items(self) -> list[nn.Parameter]:
        """The parameters whose first axis is the pool, keys excepted."""

    @abstractmethod
    def represent(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What the head sees of inputs (B, ...) that use the items `chosen`, (B, selected)."""

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        own = self.own_items() if self.item_mask and self.copy_items else None
        if own is not None and own.start > 0:
            with torch.no_grad():
                for values in self.items():
                    values[own] = values[own.start - self.selected : own.start].clone()

    def own_items(self) -> slice | None:
        """The items of the present experience under `item_mask`, while there are some."""
        start = self.index * self.selected
        end = start + self.selected
        return slice(start, end) if end <= self.pool_size else None

    def similarity(self, query: Tensor) -> Tensor:
        """Cosines (B, pool_size) between queries (B, width) and keys."""
        return normalize(query, dim=1) @ normalize(self.keys, dim=1).T

    def choose(self, similarity: Tensor) -> Tensor:
        """The items each sample uses, (B, selected)."""
        return similarity.topk(self.selected, dim=1).indices

    def choose_in_training(self, similarity: Tensor) -> Tensor:
        own = self.own_items() if self.item_mask else None
        if own is None:
            return self.choose(similarity)
        items = torch.arange(own.start, own.stop, device=similarity.device)
        return items.expand(len(similarity), -1)

    def loss(self, batch: Batch) -> Tensor:
        similarity = self.similarity(self.query(batch.x, batch.features))
        chosen = self.choose_in_training(similarity)
        logits = self.classify(self.represent(batch.x, chosen), batch.task)
        nearness = similarity.gather(1, chosen).sum(1).mean()
        return self.cross_entropy(logits, batch.y) - self.pull * nearness

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        chosen = self.choose(self.similarity(self.query(x, features)))
        return self.classify(self.represent(x, chosen), task)

    def end_experience(self, experience: Experience) -> None:
        for batch in self.batches(experience):
            with torch.no_grad():
                chosen = self.choose(self.similarity(self.query(batch.x, batch.features)))
            self.usage[self.index] += chosen.flatten().bincount(minlength=self.pool_size)

    def diagnostics(self) -> dict[str, float | list[float]]:
        """How often the samples of the last experience use each item, as shares of all uses."""
        used = self.usage[self.index]
        return {"pool_usage": (used / used.sum()).tolist()}
