"""When samples are offered to a replay memory."""

from __future__ import annotations

from typing import Literal

from cl_platform import Batch, Chunk, Strategy


class Offering(Strategy):
    """A strategy that offers what it trains on to a memory.

    Args:
        offer: ``once`` offers each sample in the first epoch of its experience, so that a memory
            holds different samples; ``every-epoch`` offers it again in each, as much published code
            does: a memory then holds some of them several times.
    """

    offer: Literal["once", "every-epoch"] = "once"

    def offers(self, batch: Batch | Chunk) -> bool:
        """Return whether the samples of a batch are to be offered to the memory."""
        return self.offer == "every-epoch" or batch.epoch == 0
