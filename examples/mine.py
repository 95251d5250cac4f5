"""A strategy and a curriculum of your own, and how to run them from Python.

python examples/mine.py
clp run --strategy examples.mine:WeightedReplay --curriculum examples.mine:LargestFirst
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Chunk, Curriculum, ReplayBuffer, Strategy, Stream, StreamInfo


class WeightedReplay(Strategy):
    """Experience replay with its own weight on the memory loss."""

    memory_size: int = 200
    beta: float = 0.5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.memory = ReplayBuffer(self.memory_size, info)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return self.memory.replay(chunk, offer=chunk.epoch == 0)  # each sample once

    def loss(self, batch: Batch) -> Tensor:
        new, old = batch.new, batch.old
        loss = self.cross_entropy(self(new.x, new.task), new)
        if len(old):
            loss = loss + self.beta * self.cross_entropy(self(old.x, old.task), old)
        return loss


class LargestFirst(Curriculum):
    """The experience with the most training samples first."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        sizes = [len(e.train) for e in stream.experiences]
        return sorted(range(len(stream)), key=lambda i: -sizes[i])


if __name__ == "__main__":
    for beta in (0.0, 0.5, 1.0):
        result = clp.run(
            {"name": "split-digits", "experiences": [4, 3, 2, 1]},
            WeightedReplay(beta=beta),
            curriculum=LargestFirst(),
            epochs=5,
        )
        print(f"beta {beta}: average accuracy {result.metrics['average_accuracy']:.3f}")
