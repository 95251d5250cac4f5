"""Low-rank updates of frozen weights: trained, added up, chosen by sample, merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone, LowRank, Projection

Updates = dict[str, LowRank]
"""Low-rank updates by name of a projection, the argument of :meth:`Backbone.encode`."""


class Adapters(nn.Module):
    """An update ``alpha / rank * up @ down`` for each of P projections of one shape (out, in).

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. The
    factors, and with them the updates, are zero until :meth:`start` or :meth:`start_from`.

    State: `down` (P, rank, in) and `up` (P, out, rank), or (n, P, ...) for n sets of them; with
    `origin`, the initial factors as well.

    Args:
        projections: by name, at least one, all of one shape.
        n: number of sets; None is a single one without an axis for it.
        origin: subtract the initial update from all later ones, for :meth:`start_from`.

    Raises:
        BadInput: there are no projections, or they differ in shape.
    """

    first_down: Tensor | None
    first_up: Tensor | None

    def __init__(
        self,
        projections: Mapping[str, Projection],
        rank: int,
        alpha: float,
        n: int | None = None,
        origin: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.scale = tuple(projections), alpha / rank
        weights = [projection.weight for projection in projections.values()]
        shapes = sorted({tuple(weight.shape) for weight in weights})
        if len(shapes) != 1:
            raise BadInput(
                f"adapters for {len(weights)} projections of shapes {shapes}: give at least one, "
                "and those of one shape at a time"
            )
        weight = weights[0]
        sets = (len(weights),) if n is None else (n, len(weights))
        self.down = nn.Parameter(weight.new_zeros(*sets, rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(*sets, weight.shape[0], rank))
        self.register_buffer("first_down", torch.zeros_like(self.down) if origin else None)
        self.register_buffer("first_up", torch.zeros_like(self.up) if origin else None)

    @torch.no_grad()
    def start(self) -> None:
        """Make `down` random and `up` zero: training begins at the frozen weights, to the bit.

        `down` is uniform within 1/sqrt(in), Kaiming's bound for a slope of sqrt(5), as in the
        authors' code.
        """
        bound = self.down.shape[-1] ** -0.5
        self.down.uniform_(-bound, bound)
        self.up.zero_()

    @torch.no_grad()
    def start_from(self, factors: Mapping[str, LowRank]) -> None:
        """Start from factors: each weight is then ``up @ down`` plus a fixed residual.

        The residual is never computed: the update is ``alpha / rank (up @ down - first)``, zero up
        to rounding at first, so that the backbone stays as it is and may be shared.
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
        """Return the updates by name; of n sets, those of indices (B,), one for every sample."""
        down: Tensor = self.down
        up: Tensor = self.up
        if self.first_down is not None and self.first_up is not None:
            down = torch.cat([down, self.first_down], dim=-2)
            up = torch.cat([up, -self.first_up], dim=-1)
        if sets is not None:
            down, up = down[sets], up[sets]
        parts = zip(self.names, down.unbind(-3), (self.scale * up).unbind(-3), strict=True)
        return {name: LowRank(below, above) for name, below, above in parts}


def summed(several: Sequence[Updates]) -> Updates:
    """Return one update for the sum of several, their ranks side by side; empty for none."""
    return {
        name: LowRank(
            torch.cat([updates[name].down for updates in several], dim=-2),
            torch.cat([updates[name].up for updates in several], dim=-1),
        )
        for name in (several[0] if several else ())
    }


def by_sample(several: Sequence[Updates], chosen: Tensor) -> Updates:
    """Return for every sample of a batch one of several updates, by the indices `chosen`, (B,)."""
    return {
        name: LowRank(
            torch.stack([updates[name].down for updates in several])[chosen],
            torch.stack([updates[name].up for updates in several])[chosen],
        )
        for name in several[0]
    }


@contextmanager
def merged(model: Backbone, updates: Updates) -> Iterator[None]:
    """Put updates into the model's own weights for a while: inference then costs nothing more.

    The model changes for all its users meanwhile. Afterwards its weights have their former bits,
    since the originals are stored rather than the updates subtracted.

    Raises:
        BadInput: an update differs from sample to sample, so that no weight can hold it.
    """
    for name, update in updates.items():
        if update.down.dim() != 2 or update.up.dim() != 2:
            raise BadInput(
                f"the update of {name} has factors of shapes {tuple(update.up.shape)} and "
                f"{tuple(update.down.shape)}; only (out, r) and (r, in), the same for all samples, "
                "can be merged: give others to model.encode"
            )
    weights = {name: model.projections()[name].weight for name in updates}
    with torch.no_grad():
        originals = {name: weight.clone() for name, weight in weights.items()}
    device = next((weight.device.type for weight in weights.values()), "cpu")
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            for name, update in updates.items():
                weights[name].add_(update.up @ update.down)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(originals[name])
