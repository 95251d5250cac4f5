"""Replay scheduling: which past experiences to replay, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from cl_platform import Batch, Chunk, Experience, RingBuffer, Strategy, StreamInfo
from cl_platform.errors import BadInput
from cl_platform.models.policy import policy_digest, read_policy

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScheduledReplay(Strategy):
    """Replay of a tiny memory that a schedule fills anew for each experience.

    Source: Klasson et al. 2023, "Learn the Time to Learn: Replay Scheduling in Continual Learning",
    Section 3. Item k of a schedule (from 0) has the shares of the memory of the k experiences
    learned before experience k. ``clp.run`` takes fixed schedules;
    :func:`sweeps.tuning.schedule_search.search_schedule` searches a good one. A policy chooses the
    shares of each experience when it begins, by the recorded validation accuracies of those before.

    Samples of an experience are taken evenly from its classes, when stored and when replayed. As in
    the authors' code, in class-incremental streams a schedule deals out only what is left after one
    sample for each past class, unless all its shares are 0. In that code the loss of such streams
    compares the classes seen so far: give ``--loss-classes seen``.

    Args:
        schedule: ``equal``, or one list of proportions per experience: ``[[], [1], [0.5, 0.5]]``.
        memory_size: samples replayed in every step, the same throughout an experience.
        history: samples stored of each experience, evenly over its classes.
        every_class: one sample for each past class first, in class-incremental streams.
        policy: a file that a sweep with ``tune.method=policy`` made, in place of a schedule.
    """

    needs_second_pass = True

    @property
    def needs_validation(self) -> bool:  # type: ignore[override]
        return self.policy is not None

    @property
    def needs_horizon(self) -> bool:  # type: ignore[override]
        return self.policy is not None

    schedule: Literal["equal"] | list[list[Share]] = "equal"
    memory_size: PositiveInt = 10
    history: PositiveInt = 10
    every_class: bool = True
    policy: str | None = None

    per_experience = ("schedule",)
    revisits = False  # a schedule has an item for each experience

    def fingerprint(self) -> str:
        return "" if self.policy is None else policy_digest(self.policy)

    def check(self, task_classes: Tensor) -> None:
        if self.policy is None:
            return
        if self.schedule != "equal":
            raise BadInput("strategy.policy chooses the schedule: leave strategy.schedule out")
        learned, n = len(read_policy(self.policy).actions), len(task_classes)
        if learned != n:
            raise BadInput(
                f"strategy.policy={self.policy} is for streams of {learned} experiences, and this "
                f"one has {n}: give a policy that was learned on as many"
            )

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        for k, shares in enumerate([] if self.schedule == "equal" else self.schedule):
            if len(shares) != k:
                raise BadInput(
                    f"strategy.schedule item {k} is {list(shares)}: expected {k} proportions, one "
                    "for each experience before"
                )
        self.stored = RingBuffer(self.history * info.n_experiences, info, by="experience")
        self.choice = info.rng.generator("schedule")
        self.shared: Sequence[float] = ()
        self.rows = torch.zeros(0, dtype=torch.int64, device=info.device)

    def begin_experience(self, experience: Experience) -> None:
        self.stored.make_room(experience.classes)
        self.shared = shares = self.shares()
        parts = [self.rows[:0]]
        for j, count in enumerate(self.dealt(shares)):
            rows = self.stored.group(j)
            rows = rows[self.evenly(self.stored.y[rows])]
            parts.append(rows.repeat(self.memory_size)[:count])
        self.rows = torch.cat(parts)

    def shares(self) -> Sequence[float]:
        """Return what each past experience gets of the memory, before the rest is dealt out."""
        if self.policy is not None:
            policy = read_policy(self.policy)
            return policy.actions[self.index][policy.choose(self.info.validated)]
        return [1.0] * self.index if self.schedule == "equal" else self.schedule[self.index]

    def dealt(self, shares: Sequence[float]) -> list[int]:
        """Return how many samples of each past experience are replayed."""
        size, least = self.memory_size, [0] * len(shares)
        if self.every_class and self.info.scenario == "class" and any(shares):
            classes = [
                len(self.stored.y[self.stored.group(j)].unique()) for j in range(len(shares))
            ]
            least = counts(classes, min(sum(classes), size))
        rest = counts(shares, size - sum(least))
        return [one + more for one, more in zip(least, rest, strict=True)]

    def evenly(self, y: Tensor) -> Tensor:
        """Return samples of classes (N,) in a random order that takes one of each class in turn."""
        order = torch.randperm(len(y), generator=self.choice, device=self.choice.device)
        y = y[order.to(y.device)]
        rank = torch.zeros_like(y)  # of each sample within its class
        for c in y.unique():
            mine = y == c
            rank[mine] = torch.arange(int(mine.sum()), device=y.device)
        return order.to(y.device)[rank.argsort(stable=True)]

    def diagnostics(self) -> dict[str, float | list[float]]:
        return {"shares": list(self.shared)} if self.shared else {}

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        batches = len(chunk.sizes)
        return self.stored.replay_rows(chunk, self.rows.repeat(batches), [len(self.rows)] * batches)

    def end_experience(self, experience: Experience) -> None:
        chosen = self.evenly(experience.train.y)[: self.history]
        for batch in self.batches(experience.subset(chosen)):
            self.stored.add(batch)


def counts(shares: Sequence[float], size: int) -> list[int]:
    """Deal out `size` by shares, the rest to the largest remainders (the earliest first)."""
    total = sum(shares)
    if not total:
        return [0] * len(shares)
    exact = [size * s / total for s in shares]
    dealt = [int(e + 1e-9) for e in exact]
    by_rest = sorted(range(len(shares)), key=lambda j: (dealt[j] - exact[j], j))
    for j in by_rest[: size - sum(dealt)]:
        dealt[j] += 1
    return dealt
