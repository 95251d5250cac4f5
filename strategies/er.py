"""Experience replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import PositiveInt

from cl_platform import Batch, Chunk, Experience, StreamInfo
from cl_platform.core.buffers import SHARED_BY_SAMPLES, MemoryKind, make_memory
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
        offer: see :class:`strategies.parts.memory.Offering`; ``experience-end`` offers all samples
            of an experience when it has been learned, so that it replays past experiences only.
    """

    memory_size: PositiveInt = 200
    memory_batch_size: PositiveInt | None = None
    memory: MemoryKind = "reservoir"
    offer: Literal["once", "every-epoch", "experience-end"] = "once"  # type: ignore[assignment]

    @property
    def needs_second_pass(self) -> bool:  # type: ignore[override]
        return self.offer == "experience-end"

    @property
    def task_free(self) -> bool:  # type: ignore[override]
        return self.offer != "experience-end" and self.memory in SHARED_BY_SAMPLES

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = make_memory(self.memory, self.memory_size, info)

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return self.buffer.replay(chunk, self.memory_batch_size, offer=self.offers(chunk))

    def offers(self, batch: Batch | Chunk) -> bool:
        return self.offer != "experience-end" and super().offers(batch)

    def end_experience(self, experience: Experience) -> None:
        if self.offer == "experience-end":
            known = self.info.scenario == "task"
            self.buffer.add_all(experience.train, experience.task if known else None)
