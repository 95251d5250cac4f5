"""Low-rank updates of frozen weights: trained, added up, chosen by sample, merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone, LowRank, Projection

Updates = dict[str, LowRank]
"""Low-rank updates by name of a projection, as :meth:`Backbone.encode` takes them."""


class Adapters(nn.Module):
    """An update ``alpha / rank * up @ down`` for each of P projections of one shape (out, in).

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. The
    factors, and with them the updates, are zero until :meth:`start` or :meth:`start_from`.

    State: `down` (P, rank, in) and `up` (P, out, rank), or (n, P, ...) for n sets of them; with
    `origin`, the factors they started from as well.

    Args:
        places: the projections by name.
        n: how many sets; None is a single one without an axis for it.
        origin: updates count from where they started, for :meth:`start_from`.
    """

    first_down: Tensor | None
    first_up: Tensor | None

    def __init__(
        self,
        places: Mapping[str, Projection],
        rank: int,
        alpha: float,
        n: int | None = None,
        origin: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.scale = tuple(places), alpha / rank
        weight = _any_weight(places)
        sets = (len(places),) if n is None else (n, len(places))
        self.down = nn.Parameter(weight.new_zeros(*sets, rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(*sets, weight.shape[0], rank))
        self.register_buffer("first_down", torch.zeros_like(self.down) if origin else None)
        self.register_buffer("first_up", torch.zeros_like(self.up) if origin else None)

    @torch.no_grad()
    def start(self) -> None:
        """Random `down` and zero `up`: training begins at the frozen weights, to the bit.

        `down` is uniform within 1/sqrt(in), Kaiming's bound for a slope of sqrt(5), as in the
        authors' code.
        """
        bound = self.down.shape[-1] ** -0.5
        self.down.uniform_(-bound, bound)
        self.up.zero_()

    @torch.no_grad()
    def start_from(self, factors: Mapping[str, LowRank]) -> None:
        """Given factors ``up @ down`` of each weight, which is then theirs and a fixed residual.

        The residual is never made: the update is ``alpha / rank (up @ down - first)``, zero up to
        rounding at first, so that the backbone stays as it is and may be shared.
        """
        assert self.first_down is not None
        assert self.first_up is not None
        share = self.scale**-0.5
        for i, name in enumerate(self.names):
            self.down[i] = share * factors[name].down
            self.up[i] = share * factors[name].up
        self.first_down.copy_(self.down)
        self.first_up.copy_(self.up)

    def updates(self, sets: Tensor | None = None) -> Updates:
        """The updates by name; of n sets, those given by (B,) indices, for every sample its own."""
        down: Tensor = self.down
        up: Tensor = self.up
        if self.first_down is not None and self.first_up is not None:
            down = torch.cat([down, self.first_down], dim=-2)
            up = torch.cat([up, -self.first_up], dim=-1)
        if sets is not None:
            down, up = down[sets], up[sets]
        parts = zip(self.names, down.unbind(-3), (self.scale * up).unbind(-3), strict=True)
        return {name: LowRank(below, above) for name, below, above in parts}


def _any_weight(places: Mapping[str, Projection]) -> Tensor:
    """One of the weights, which all have its shape."""
    weights = [place.weight for place in places.values()]
    shapes = sorted({tuple(weight.shape) for weight in weights})
    if len(shapes) != 1:
        raise BadInput(
            f"adapters for {len(places)} projections of shapes {shapes}: give at least one, and "
            "those of one shape at a time"
        )
    return weights[0]


def summed(several: Sequence[Updates]) -> Updates:
    """One update for the sum of several: their ranks side by side. Empty for none."""
    return {
        name: LowRank(
            torch.cat([updates[name].down for updates in several], dim=-2),
            torch.cat([updates[name].up for updates in several], dim=-1),
        )
        for name in (several[0] if several else ())
    }


def by_sample(several: Sequence[Updates], chosen: Tensor) -> Updates:
    """For every sample of a batch one of several updates; `chosen` are their indices, (B,)."""
    return {
        name: LowRank(
            torch.stack([updates[name].down for updates in several])[chosen],
            torch.stack([updates[name].up for updates in several])[chosen],
        )
        for name in several[0]
    }


@contextmanager
def merged(model: Backbone, updates: Updates) -> Iterator[None]:
    """Inside, the model's own weights hold the updates: inference costs what it costs without.

    The model is changed for everybody who uses it meanwhile; afterwards its weights have the bits
    they had, since the originals are kept rather than the updates subtracted.

    Raises:
        BadInput: an update is for single samples, so that no weight holds it.
    """
    _check_mergeable(updates)
    places = model.projections()
    with torch.no_grad():
        kept = {name: places[name].weight.clone() for name in updates}
    try:
        with torch.no_grad(), torch.autocast(_device_type(kept), enabled=False):
            for name, update in updates.items():
                places[name].weight.add_(update.up @ update.down)
        yield
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                places[name].weight.copy_(weight)


def _check_mergeable(updates: Updates) -> None:
    for name, update in updates.items():
        if update.down.dim() != 2 or update.up.dim() != 2:
            raise BadInput(
                f"the update of {name} has factors of shapes {tuple(update.up.shape)} and "
                f"{tuple(update.down.shape)}; only (out, r) and (r, in), the same for all samples, "
                "can be merged: give others to model.encode"
            )


def _device_type(weights: Mapping[str, Tensor]) -> str:
    return next((weight.device.type for weight in weights.values()), "cpu")
