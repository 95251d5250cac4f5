"""Initial factors of low-rank adapters: components of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cl_platform.models.backbone import Backbone, LowRank, Projection

Init = Literal["kaiming", "pissa", "corda-preserve", "corda-preview"]

DAMPING, INVERSE_ERROR = 0.01, 0.05  # of the authors' code


def factors_of(
    init: Init,
    model: Backbone,
    projections: Mapping[str, Projection],
    rank: int,
    data: Iterable[Tensor],
) -> dict[str, LowRank]:
    """Return the initial factors ``up @ down`` of each weight for an adapter of some rank.

    Sources: Meng et al. 2024, "PiSSA": the largest components of the weight. Yang et al. 2024,
    "CorDA: Context-Oriented Decomposition Adaptation": of the weight in the context of its inputs,
    the largest components ("preview": learn more about the data's subject) or the smallest
    ("preserve": what the weights hold about it stays fixed).

    Args:
        init: anything but ``kaiming``, which does not depend on the weights.
        projections: by name.
        data: inputs of the model, batch by batch (B, ...); not used by PiSSA.
    """
    found = None if init == "pissa" else covariances(model, projections, data)
    smallest = init == "corda-preserve"
    return {
        name: components(projection.weight, rank, None if found is None else found[name], smallest)
        for name, projection in projections.items()
    }


@torch.no_grad()
def components(
    weight: Tensor, rank: int, covariance: Tensor | None = None, smallest: bool = False
) -> LowRank:
    """Return factors (out, rank) and (rank, in) of the largest or smallest components of a weight.

    With the covariance C of its inputs (in, in), damped, ``W C = U S V'``, and the components of W
    are ``U_i S_i (V' C^-1)_i``; the root of S goes to either factor. None is the identity.

    The sum of components does not depend on the scale of C, but the share of either factor does:
    here the mean diagonal of C is one, so that PiSSA is the case of inputs without correlation. The
    authors' code divides each batch of inputs by its largest entry, and the sum by 256.
    """
    exact = weight.double()
    if covariance is None:
        covariance = torch.eye(exact.shape[1], device=exact.device)
    context, inverse = damped(covariance.double())
    u, s, v = torch.linalg.svd(exact @ context, full_matrices=False)
    part = slice(max(len(s) - rank, 0), None) if smallest else slice(rank)
    root = s[part].sqrt()
    down, up = root[:, None] * (v[part] @ inverse), u[:, part] * root
    return LowRank(down.to(weight.dtype), up.to(weight.dtype))


def damped(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return a covariance, scaled and with a damped diagonal, and its inverse.

    The mean diagonal of the covariance is one. The damping is that of the authors' code: 0.01,
    doubled until the inverse is accurate (||C C^-1 - I|| < 0.05).
    """
    one = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    scaled = covariance / covariance.diagonal().mean()
    damping = DAMPING
    while True:
        context = (scaled + damping * one) / (1 + damping)
        inverse = torch.linalg.inv(context)
        if torch.linalg.norm(context @ inverse - one) < INVERSE_ERROR:
            return context, inverse
        damping *= 2


@torch.no_grad()
def covariances(
    model: Backbone, projections: Mapping[str, Projection], data: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return the uncentred covariance (in, in) of the inputs of each projection, float64, by name.

    Padding is left out. Layers that several projections share are counted once.
    """
    layers = {projection.layer for projection in projections.values()}
    sums: dict[nn.Module, Tensor] = {
        layer: layer.weight.new_zeros(layer.in_features, layer.in_features, dtype=torch.float64)
        for layer in layers
    }
    real = torch.empty(0)  # mask of the batch's tokens that are no padding, (B, n)

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        x = inputs[0][real].double()
        sums[layer].add_(x.T @ x)

    n_tokens = 0
    for x in data:
        tokens = model.embed(x)
        real = torch.ones(tokens.values.shape[:2], dtype=torch.bool, device=x.device)
        real = real if tokens.mask is None else tokens.mask
        n_tokens += int(real.sum())
        with ExitStack() as attached:  # for this pass alone: `data` may use the model as well
            for layer in layers:
                attached.callback(layer.register_forward_hook(add).remove)
            model.encode(tokens)
    return {name: sums[projection.layer] / n_tokens for name, projection in projections.items()}
