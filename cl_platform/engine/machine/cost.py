"""What training costs: seconds, FLOPs, joules and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from cl_platform.engine.machine.energy import counter_of


class Builder:
    """Builds models, and knows how large one is before a method adds to it.

    Attributes:
        nbytes: of parameters and buffers of the first; 0 where none was built.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self.build, self.nbytes = build, 0

    def __call__(self) -> nn.Module:
        model = self.build()
        self.nbytes = self.nbytes or sum(t.nbytes for t in model.state_dict().values())
        return model


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
        energy: whether to read what the device takes, where it tells; see
            :mod:`cl_platform.engine.machine.energy`.

    Attributes:
        before: the cost until a checkpoint from which this training went on.
    """

    def __init__(self, device: torch.device, count_flops: bool, energy: bool = True) -> None:
        self.device = device
        self.eval_seconds = 0.0
        self._joules = counter_of(device) if energy else None
        self._spent: Callable[[], float] | None = None
        self._eval_joules = 0.0
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
        clock, start = Stopwatch(self.device), self._reading()
        self._seconds, self._spent = clock.seconds, lambda: self._reading() - start
        with self._counter or nullcontext():
            yield
        seconds, spent = clock.seconds(), self._reading() - start
        self._seconds, self._spent = lambda: seconds, lambda: spent

    def took(self, seconds: float) -> None:
        """Count so many seconds, evaluations among them: a share of a training with others."""
        self._seconds = lambda: seconds

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count what happens inside, in the midst of training, as evaluation."""
        clock, flops, joules = Stopwatch(self.device), self._flops(), self._reading()
        yield
        self.eval_seconds += clock.seconds()
        self._eval_joules += self._reading() - joules
        self._eval_flops += self._flops() - flops

    def cost(self) -> dict[str, float]:
        """Return seconds, bytes and, where counted, FLOPs and joules, so far or in the end."""
        cost = {
            "train_seconds": self._seconds() - self.eval_seconds,
            "eval_seconds": self.eval_seconds,
            "peak_memory_bytes": peak_memory(self.device),
        }
        if self._counter is not None:
            cost["flops"] = float(self._flops() - self._eval_flops)
        if self._joules is not None and self._spent is not None:  # not beside other lanes
            cost["energy_joules"] = self._spent() - self._eval_joules
        peak = max(cost["peak_memory_bytes"], self.before.get("peak_memory_bytes", 0.0))
        summed = {name: value + self.before.get(name, 0.0) for name, value in cost.items()}
        return {**summed, "peak_memory_bytes": peak}

    def _reading(self) -> float:
        return 0.0 if self._joules is None else self._joules()

    def _flops(self) -> int:
        return 0 if self._counter is None else self._counter.get_total_flops()


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in bytes: of the device in this step, or of this process so far."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
