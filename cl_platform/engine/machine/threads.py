"""How many CPU threads a run computes with.

The bits of a run depend on it, so ``threads: auto`` counts the work of a step and reads no clock:
a run that goes on elsewhere, or shares states, comes to the same number on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cl_platform.config.run_config import RunConfig
from cl_platform.core.rng import global_generators
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.engine.evaluation import logits_of, without_trace
from cl_platform.models.work import multiplications

# Multiplications of a forward pass of a batch from which on several threads paid: below, a step of
# a multilayer perceptron took 1.1 to 1.6 times as long on two, above 0.7 times.
ENOUGH = 2 * 10**8


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Compute with so many threads inside."""
    before = torch.get_num_threads()
    # Even if it is the same number: to set it keeps MKL from taking fewer, in all that follows.
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(strategy: Strategy, samples: Samples, task: int, config: RunConfig) -> int:
    """Return the number of threads of a run.

    By ``auto`` it is one for small models, else as many as the process has; on a GPU these as well.

    Args:
        strategy: fresh from `setup`.
        samples: some that it will learn, of the experience with the label `task`.
    """
    available = torch.get_num_threads()
    if config.threads != "auto":
        return config.threads
    if available == 1 or config.device != "cpu":
        return available
    y = samples.y[:2]
    raw = samples.gather(torch.arange(len(y)))
    x, tasks = strategy.info.preprocess(raw), torch.full_like(y, task)
    seed = global_generators(config.seed)
    with torch.no_grad(), without_trace(strategy), strategy.info.rng.rewound(), seed:
        work = multiplications(strategy, lambda: logits_of(strategy, x, tasks))
    return available if work * config.batch_size >= ENOUGH * len(y) else 1
