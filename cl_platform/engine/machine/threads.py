"""How many CPU threads a run computes with.

The bits of a run depend on it, so ``threads: auto`` counts the work of a step and reads no clock:
a run that goes on elsewhere, or shares states, comes to the same number on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from cl_platform.config.run_config import RunConfig
from cl_platform.core.rng import global_generators
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.engine.evaluation import logits_of, without_trace

# Multiplications of a forward pass of a batch from which on several threads paid: below, a step of
# a multilayer perceptron took 1.1 to 1.6 times as long on two, above 0.7 times.
ENOUGH = 2 * 10**8
BY_ELEMENT = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm)  # their weights multiply no vectors


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


def multiplications(module: nn.Module, forward: Callable[[], object]) -> int:
    """Return the multiplications by weights, in linear and convolutional layers and attention, of
    what `forward` does with a module."""
    found = [0]

    def count(layer: nn.Module, _: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(layer, BY_ELEMENT) or not isinstance(output, torch.Tensor):
            return
        weights = sum(p.numel() for p in layer.parameters(recurse=False) if p.dim() > 1)
        channels = output.shape[1 if _is_convolution(layer) else -1] if output.dim() > 1 else 1
        found[0] += weights * output.numel() // max(1, channels)

    with ExitStack() as hooks:
        for layer in module.modules():
            if any(p.dim() > 1 for p in layer.parameters(recurse=False)):
                hooks.enter_context(layer.register_forward_hook(count))
        forward()
    return found[0]


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
