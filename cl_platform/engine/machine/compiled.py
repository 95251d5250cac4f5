"""Losses compiled with their backward passes by torch, where a run asks for it.

Whether a step is compiled decides its bits. So it must not depend on what the process did before:
each experience compiles anew (what was compiled once is found in torch's own cache on disk, which
all processes of a user share), for each shape of batch, and as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cl_platform.core.batch import Batch
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper
from cl_platform.errors import one_line

BACKEND = "inductor"
# Multiplications of the forward passes of an experience from which on ``auto`` compiles: for a
# residual network on a CPU, compiled steps took 0.72 of the time, which earned the half minute of
# warming up back in a third of this.
EARNS = 2 * 10**12


def earns(per_step: int, weights: int, steps: int) -> bool:
    """Return whether an experience is long enough to earn back what compiling takes.

    No clock is read, so that two runs decide alike. Models that use each weight once per sample
    (multilayer perceptrons) never do: their compiled steps took 1.1 to 1.2 times as long.

    Args:
        per_step: multiplications of the forward pass of a sample, times the samples in a step.
        weights: what it would be if each weight were used once per sample.
        steps: of the experience.
    """
    return per_step > weights and per_step * steps >= EARNS


class CompiledLoss:
    """Stands for a strategy's `loss` while it learns an experience.

    Attributes:
        steps: how many losses were computed by compiled code.
        refusal: why none is any more, in one line; empty while all are.
    """

    def __init__(self, strategy: Strategy) -> None:
        import torch._dynamo  # in seconds, which are training: it is what was asked for

        torch._dynamo.reset()
        self.graphs = BACKEND == "inductor" and strategy.info.device.type == "cuda"
        self.plain = strategy.loss
        self.compiled = torch.compile(
            self.plain,
            fullgraph=True,
            dynamic=False,
            backend=BACKEND,
            mode="reduce-overhead" if self.graphs else None,
        )
        self.fault: Any = torch._dynamo.exc.TorchDynamoException
        self.steps, self.refusal = 0, ""

    def __call__(self, batch: Batch) -> Tensor:
        if self.refusal:
            return self.plain(batch)
        try:
            if self.graphs:
                torch.compiler.cudagraph_mark_step_begin()
            loss: Tensor = self.compiled(batch)
        except self.fault as error:
            self.refusal = one_line(error, 200)
            return self.plain(batch)
        self.steps += 1
        return loss.clone() if self.graphs else loss  # the next graph writes where this one did


@contextmanager
def compiling(strategy: Strategy, wanted: bool) -> Iterator[CompiledLoss | None]:
    """Compile a strategy's loss inside, if that is wanted."""
    if not wanted:
        yield None
        return
    while isinstance(strategy, Wrapper):  # which calls the loss of what it wraps
        strategy = strategy.inner
    loss = CompiledLoss(strategy)
    object.__setattr__(strategy, "loss", loss)
    try:
        yield loss
    finally:
        object.__delattr__(strategy, "loss")
