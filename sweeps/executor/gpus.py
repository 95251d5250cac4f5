"""The memory of a GPU: what a run takes of it, and how many runs fit beside each other."""

from __future__ import annotations

import gc

import torch

MARGIN = 0.1  # of a GPU's memory that stays free: later experiences may take more than the first
MOST_RUNS = 16  # on one GPU: they take turns on it
PARTS = 10_000  # of a GPU, in which Ray counts


def used_memory() -> tuple[int, int] | None:
    """Return the most bytes that this process has taken of its GPU, and all that it has.

    The context of CUDA counts as well, and so does what other processes hold just now. None where
    nothing was computed on a GPU.
    """
    if not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free + torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved(), total


def share_of(used: int, total: int) -> float:
    """Return the part of a GPU to reserve for a run that takes `used` of its `total` bytes."""
    runs = min(MOST_RUNS, int(total * (1 - MARGIN) // max(1, used)))
    return 1.0 if runs < 2 else PARTS // runs / PARTS


def ran_out(error: BaseException | None) -> bool:
    """Return whether an error is, or comes from, one of the GPU's memory."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
