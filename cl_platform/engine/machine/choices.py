"""What a run chooses of its machine: how many threads it has, and whether its losses are compiled.

The bits of a run depend on both, so ``auto`` counts the work of a step and reads no clock: a run
that goes on elsewhere, or shares states, chooses alike on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cl_platform.config.run_config import RunConfig
from cl_platform.core.rng import global_generators
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience
from cl_platform.engine.evaluation import logits_of, without_trace
from cl_platform.engine.machine.compiled import earns
from cl_platform.models.precision import computing
from cl_platform.models.work import multiplications, weights_of

# Multiplications of a forward pass of a batch from which on several threads paid: below, a step of
# a multilayer perceptron took 1.1 to 1.6 times as long on two, above 0.7 times.
ENOUGH = 2 * 10**8


class Choices:
    """The choices of a run; made when there is a strategy whose work can be counted."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.work = 0  # multiplications of a forward pass of one batch of new samples
        self.threads: int | None = None

    def make(self, strategy: Strategy, first: Experience) -> None:
        """Make the choices by a strategy fresh from `setup`, which will learn `first`.

        By ``threads: auto`` a small model gets one, others as many as the process has; on a GPU
        all get these.
        """
        config, available = self.config, torch.get_num_threads()
        on_cpu = self.device.type == "cpu"
        if self.threads is None and on_cpu and (config.compile == "auto" or available > 1):
            self.work = self._count(strategy, first)
        if config.threads != "auto":
            self.threads = config.threads
        else:
            self.threads = available if not on_cpu or self.work >= ENOUGH else 1

    def _count(self, strategy: Strategy, first: Experience) -> int:
        data = first.train
        y = data.y[:2]
        raw = data.gather(torch.arange(len(y), device=data.index.device))
        x, tasks = strategy.info.preprocess(raw), torch.full_like(y, first.task)
        seed = global_generators(self.config.seed)
        with torch.no_grad(), without_trace(strategy), strategy.info.rng.rewound(), seed:
            work = multiplications(strategy, lambda: logits_of(strategy, x, tasks))
        return work * self.config.batch_size // len(y)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute with these threads and the run's precision inside."""
        assert self.threads is not None
        before = torch.get_num_threads()
        # Even if it is the same number: to set it keeps MKL from taking fewer, in all that follows.
        torch.set_num_threads(self.threads)
        try:
            with computing(self.config.precision, self.device):
                yield
        finally:
            torch.set_num_threads(before)

    def compiles(self, strategy: Strategy, steps: int) -> bool:
        """Return whether an experience of so many steps is learned by a compiled loss.

        On a GPU ``auto`` is no: what it would gain there has not been measured.
        """
        if self.config.compile != "auto":
            return self.config.compile
        weights = weights_of(strategy) * self.config.batch_size
        return self.device.type == "cpu" and earns(self.work, weights, steps)
