"""Gradients beyond ``loss.backward()``: flat, per sample, and without side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from cl_platform.core.strategy import Strategy

CHUNK_BYTES = 2**26  # of per-sample gradients at a time


def trainable(module: nn.Module) -> list[Tensor]:
    """Return the parameters that are trained, in the order of all flat vectors here."""
    return [p for p in module.parameters() if p.requires_grad]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Copy tensors of any shapes into one vector (P,), detached."""
    return torch.cat([t.detach().flatten() for t in tensors])


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of a vector (..., P) as (..., *shape) views, with the shapes of `like`."""
    parts = flat.split([t.numel() for t in like], dim=-1)
    return [part.unflatten(-1, t.shape) for part, t in zip(parts, like, strict=True)]


def flat_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Compute the gradient of a scalar as one vector (P,), zero where it does not depend."""
    return flatten(torch.autograd.grad(loss, parameters, materialize_grads=True))


def sample_gradients(
    model: nn.Module, loss: Callable[..., Tensor], x: Tensor, *targets: Tensor
) -> Iterator[Tensor]:
    """Yield the gradient of every sample's own loss, in order, in chunks (m, P) of bounded memory.

    The model is in evaluation mode: otherwise batch norm has no gradient of a single sample.

    Args:
        loss: (logits (1, n_classes), *targets (1, ...)) -> scalar.
        x: inputs (B, ...); targets: (B, ...) each.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    size = max(1, CHUNK_BYTES // (4 * sum(p.numel() for p in parameters.values())))

    def of_one(values: dict[str, Tensor], x: Tensor, *targets: Tensor) -> Tensor:
        logits = functional_call(model, values, (x[None],))
        return loss(logits, *(t[None] for t in targets))

    batched = vmap(grad(of_one), in_dims=(None, 0, *(0 for _ in targets)), randomness="different")
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(x), size):
            end = start + size
            gradients = batched(parameters, x[start:end], *(t[start:end] for t in targets))
            yield torch.cat([g.flatten(1) for g in gradients.values()], dim=1)
    finally:
        model.train(was_training)


def loss_gradients(
    strategy: Strategy, x: Tensor, y: Tensor, task: Tensor | None
) -> Iterator[Tensor]:
    """Yield the gradient of every sample's cross-entropy, in order, in chunks (m, P).

    Args:
        x, y, task: as in a :class:`Batch`; the classes of :meth:`Strategy.competing` compete.
    """
    allowed = strategy.competing(task)
    if allowed is None:
        yield from sample_gradients(strategy.model, cross_entropy, x, y)
        return

    def among_competing(logits: Tensor, y: Tensor, allowed: Tensor) -> Tensor:
        return cross_entropy(logits.masked_fill(~allowed, -torch.inf), y)

    allowed = allowed.expand(len(x), -1)
    yield from sample_gradients(strategy.model, among_competing, x, y, allowed)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norm as they are in forward passes of training."""
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
