"""Where low-rank adapters start: in components of the weights themselves, by what these are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from cl_platform.models.backbone import Backbone, LowRank, Projection

Init = Literal["kaiming", "pissa", "corda-preserve", "corda-preview"]

DAMPING, INVERSE_ERROR = 0.01, 0.05  # of the authors' code


def factors_of(
    init: Init, model: Backbone, places: Mapping[str, Projection], rank: int, data: Iterable[Tensor]
) -> dict[str, LowRank]:
    """The factors ``up @ down`` of each weight that an adapter of some rank starts from.

    Sources: Meng et al. 2024, "PiSSA": the largest components of the weight. Yang et al. 2024,
    "CorDA: Context-Oriented Decomposition Adaptation": of the weight in the context of its inputs,
    the largest components ("preview": learn more of what the data are about) or the smallest
    ("preserve": what the data are about stays fixed).

    Args:
        init: anything but ``kaiming``, which looks at no weights.
        places: the projections by name.
        data: inputs of the model, batch by batch (B, ...); PiSSA does not look at them.
    """
    if init == "pissa":
        return {name: components(place.weight, rank) for name, place in places.items()}
    seen = covariances(model, places, data)
    smallest = init == "corda-preserve"
    return {
        name: components(place.weight, rank, seen[name], smallest) for name, place in places.items()
    }


@torch.no_grad()
def components(
    weight: Tensor, rank: int, covariance: Tensor | None = None, smallest: bool = False
) -> LowRank:
    """Factors (out, rank) and (rank, in) of the largest or smallest components of a weight.

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
    """A covariance with so much of its mean diagonal added that it has an inverse; and that.

    As much as the authors' code adds: 0.01, doubled until the inverse is one (||C C^-1 - I|| <
    0.05). The mean diagonal of what is returned is one.
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
    model: Backbone, places: Mapping[str, Projection], data: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The uncentred covariance (in, in) of the inputs of each projection, float64, by name.

    Padding is left out. Layers that several projections share are counted once.
    """
    layers = {place.layer for place in places.values()}
    sums = {layer: _zeros(layer) for layer in layers}
    n_tokens = 0
    for x in data:
        tokens = model.embed(x)
        real = torch.ones(tokens.values.shape[:2], dtype=torch.bool, device=x.device)
        real = real if tokens.mask is None else tokens.mask
        n_tokens += int(real.sum())
        with ExitStack() as attached:
            for layer in layers:
                attached.callback(layer.register_forward_hook(_adding(sums[layer], real)).remove)
            model.encode(tokens)
    return {name: sums[place.layer] / n_tokens for name, place in places.items()}


def _zeros(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.in_features, layer.in_features, dtype=torch.float64)


def _adding(total: Tensor, real: Tensor) -> Callable[..., None]:
    """A hook that adds up the products of a layer's inputs (B, n, in) where they are real."""

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0][real].double()
        total.add_(x.T @ x)

    return add
