"""What training costs: seconds, FLOPs and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch


class Stopwatch:
    """Seconds of work on a device, waiting for it at both ends only."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self._now()

    def seconds(self) -> float:
        return self._now() - self.start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Meter:
    """The cost of training on one experience, without that of the evaluations made meanwhile.

    Args:
        device: where it is trained.
        count_flops: whether to have torch count the FLOPs of matrix products, convolutions and
            attention, forward and backward; everything else counts nothing.

    Attributes:
        before: the cost until a checkpoint from which this training went on.
    """

    def __init__(self, device: torch.device, count_flops: bool) -> None:
        self.device = device
        self.eval_seconds = 0.0
        self._eval_flops = 0
        self.before: Mapping[str, float] = {}
        self._seconds = lambda: 0.0
        self._counter = None
        if count_flops:
            from torch.utils.flop_counter import FlopCounterMode  # takes a while to import

            self._counter = FlopCounterMode(display=False)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count what happens inside."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        clock = Stopwatch(self.device)
        self._seconds = clock.seconds
        with self._counter or nullcontext():
            yield
        seconds = clock.seconds()
        self._seconds = lambda: seconds

    def took(self, seconds: float) -> None:
        """Count so many seconds, evaluations among them: a share of a training with others."""
        self._seconds = lambda: seconds

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count what happens inside, in the midst of training, as evaluation."""
        clock, flops = Stopwatch(self.device), self._flops()
        yield
        self.eval_seconds += clock.seconds()
        self._eval_flops += self._flops() - flops

    def cost(self) -> dict[str, float]:
        """Return seconds, bytes and, if they were counted, FLOPs, so far or in the end."""
        cost = {
            "train_seconds": self._seconds() - self.eval_seconds,
            "eval_seconds": self.eval_seconds,
            "peak_memory_bytes": peak_memory(self.device),
        }
        if self._counter is not None:
            cost["flops"] = float(self._flops() - self._eval_flops)
        peak = max(cost["peak_memory_bytes"], self.before.get("peak_memory_bytes", 0.0))
        summed = {name: value + self.before.get(name, 0.0) for name, value in cost.items()}
        return {**summed, "peak_memory_bytes": peak}

    def _flops(self) -> int:
        return 0 if self._counter is None else self._counter.get_total_flops()


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in bytes: of the device in this step, or of this process so far."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
