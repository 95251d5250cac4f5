"""Replay scheduling: which past experiences to replay, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_platform import Batch, Experience, RingBuffer, Strategy, StreamInfo
from cl_platform.errors import BadInput

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScheduledReplay(Strategy):
    """Replay of a tiny memory that a schedule fills anew for each experience.

    Source: Klasson et al. 2023, "Learn the Time to Learn: Replay Scheduling in Continual Learning",
    Section 3. Item k of a schedule says how the memory is shared out over the k experiences learned
    before experience k (from 0). ``clp.run`` takes fixed schedules;
    :func:`sweeps.tuning.schedule_search.search_schedule` looks for a good one.

    Args:
        schedule: ``equal``, or one list of proportions per experience: ``[[], [1], [0.5, 0.5]]``.
        memory_size: samples replayed in every step, the same throughout an experience.
        history: samples stored of each experience, evenly over its classes.
    """

    schedule: Literal["equal"] | list[list[Share]] = "equal"
    memory_size: PositiveInt = 10
    history: PositiveInt = 10

    per_experience: ClassVar[tuple[str, ...]] = ("schedule",)

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if self.schedule != "equal":
            check_schedule(self.schedule)
        self.stored = RingBuffer(self.history * info.n_experiences, info, by="experience")
        self.choice = info.rng.generator("schedule")
        self.rows = torch.zeros(0, dtype=torch.int64, device=info.device)

    def begin_experience(self, experience: Experience) -> None:
        self.stored.make_room(experience.classes)
        past = self.index
        shares = [1.0] * past if self.schedule == "equal" else list(self.schedule[past])
        parts = [
            self._shuffled(self.stored.group(j)).repeat(self.memory_size)[:count]
            for j, count in enumerate(counts(shares, self.memory_size))
        ]
        self.rows = torch.cat([self.rows[:0], *parts])

    def loss(self, batch: Batch) -> Tensor:
        if not len(self.rows):
            return super().loss(batch)
        old = self.stored.read(self.rows)
        logits = self.model(torch.cat([batch.x, old.x]))
        task = None if old.task is None else torch.cat([batch.task, old.task])  # type: ignore[list-item]
        return cross_entropy(self.restrict(logits, task), torch.cat([batch.y, old.y]))

    def end_experience(self, experience: Experience) -> None:
        y = experience.train.y
        order = torch.randperm(len(y), generator=self.choice, device=self.choice.device)
        y = y[order.to(y.device)]
        rank = torch.zeros_like(y)  # of each sample within its class
        for c in experience.classes:
            mine = y == c
            rank[mine] = torch.arange(int(mine.sum()), device=y.device)
        chosen = order.to(y.device)[rank.argsort(stable=True)[: self.history]]
        for batch in self.batches(experience.subset(chosen)):
            self.stored.add(batch)

    def _shuffled(self, rows: Tensor) -> Tensor:
        order = torch.randperm(len(rows), generator=self.choice, device=rows.device)
        return rows[order]


def counts(shares: Sequence[float], size: int) -> list[int]:
    """`size` dealt out by shares, the rest to the largest remainders (the earliest first)."""
    total = sum(shares)
    if not total:
        return [0] * len(shares)
    exact = [size * s / total for s in shares]
    dealt = [int(e + 1e-9) for e in exact]
    by_rest = sorted(range(len(shares)), key=lambda j: (dealt[j] - exact[j], j))
    for j in by_rest[: size - sum(dealt)]:
        dealt[j] += 1
    return dealt


def check_schedule(schedule: Sequence[Sequence[float]]) -> None:
    """Whether item k has k proportions.

    Raises:
        BadInput: it has not; says which.
    """
    for k, shares in enumerate(schedule):
        if len(shares) != k:
            raise BadInput(
                f"strategy.schedule item {k} is {list(shares)}: expected {k} proportions, one for "
                "each experience before"
            )
