"""A batch as the kernel prepares it."""

from __future__ import annotations

from cl_platform import Batch, Strategy
from cl_platform.core.batch import Chunk


def with_replay(strategy: Strategy, batch: Batch) -> Batch:
    """Return a batch with what a strategy replays with it; it is offered to its memory."""
    views = strategy.info.preprocess.views
    augment = strategy.info.rng.generator("augment")
    chunk = Chunk(batch.raw, batch.y, batch.task, [len(batch)], lambda raw: views(raw, augment))
    (whole,) = strategy.prepare_batches(chunk)
    return whole
