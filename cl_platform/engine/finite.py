"""Which inputs and parameters are not finite where numbers went wrong."""

from __future__ import annotations

import torch
from torch import nn

from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Samples

ROWS = 1000  # looked at together


def broken_parameters(module: nn.Module, trainable: bool = False) -> list[str]:
    """Return the names of the parameters that hold nan or infinity; waits for the device once.

    Args:
        trainable: look at those alone that are trained.
    """
    named = [
        (name, p)
        for name, p in module.named_parameters()
        if p.numel() and (p.requires_grad or not trainable)
    ]
    if not named:
        return []
    # The largest number of each: nan if there is one.
    largest = [torch.linalg.vector_norm(p.detach(), torch.inf).float() for _, p in named]
    finite = torch.stack(largest).isfinite().tolist()
    return [name for (name, _), fine in zip(named, finite, strict=True) if not fine]


def broken_inputs(data: Samples, preprocess: Preprocess, what: str) -> str:
    """Return why inputs, as the model sees them, spoil what comes of them; empty if finite.

    Args:
        what: names the samples.
    """
    every = torch.arange(len(data), device=data.index.device).split(ROWS)
    inputs = (preprocess(data.gather(rows)) for rows in every)
    n = sum(int((~x.isfinite().flatten(1).all(1)).sum()) for x in inputs)
    if not n:
        return ""
    return (
        f"since the inputs of {n} of {len(data)} {what} hold nan or infinity; look at the data "
        "and their transformation"
    )
