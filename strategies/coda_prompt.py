"""CODA-Prompt."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.errors import BadInput
from cl_platform.models.precision import comparing
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.prefixes import Length, check_blocks, prefixes


class CODAPrompt(FrozenBackbone):
    """Prompts are sums of components, weighted by the fit of an input's query to their keys.

    Source: Smith et al. 2023, "CODA-Prompt: COntinual Decomposed Attention-based Prompting for
    Rehearsal-Free Continual Learning". At every block component m has a prompt P_m, a key K_m and
    an attention A_m; a query q gets the prompt sum_m cos(q * A_m, K_m) P_m, a prefix. Each of T
    experiences adds components // T of them and trains these alone; earlier ones are used as they
    are. A remainder of the division is not used, so that all experiences have the same number.

    New P, K and A are made orthonormal, and orthogonal to all earlier ones (Gram-Schmidt), as in
    the authors' updated code, where this replaces the paper's penalty; `orthogonality` restores it.
    Training leaves the earlier ones oblique; the new ones are orthogonal to their span. The head
    starts at zero.

    Args:
        components: of all experiences together, at most as many as the model is wide: more cannot
            be orthogonal.
        length: tokens of a prompt, half of them before the keys and half before the values.
        blocks: blocks that have prompts, from 0.
        orthogonality: weight of the mean square of the entries of B B^T - I, summed over B = P, K
            and A (one component a row) and over blocks; the mean is the authors' code's.
    """

    needs_horizon = True  # the components are shared out among all experiences

    components: PositiveInt = 100
    length: Length = 8
    blocks: tuple[NonNegativeInt, ...] = (0, 1, 2, 3, 4)
    orthogonality: NonNegativeFloat = 0.0

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        check_blocks("blocks", self.blocks, self.model)
        width = self.model.width
        if not info.n_experiences <= self.components <= width:
            raise BadInput(
                f"strategy.components={self.components} for {info.n_experiences} experiences and "
                f"vectors of {width} numbers: give {info.n_experiences} to {width}"
            )
        self.prompts = self._zeros(self.length, width)
        self.keys, self.attention = self._zeros(width), self._zeros(width)

    def _zeros(self, *shape: int) -> nn.ParameterList:
        """Make zeros for the components of each experience, (n_blocks, components // T, *shape).

        Components that are not learned yet add nothing to a prompt.
        """
        n = self.info.n_experiences
        size = (len(self.blocks), self.components // n, *shape)
        zeros = (torch.zeros(size, device=self.info.device) for _ in range(n))
        return nn.ParameterList(nn.Parameter(z) for z in zeros)

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        if self.returning:
            return
        for parts in (self.prompts, self.keys, self.attention):
            own, earlier = parts[self.index], [part.flatten(2) for part in parts[: self.index]]
            with torch.no_grad():
                own.copy_(orthonormal(torch.randn_like(own).flatten(2), earlier).view_as(own))

    def _all(self, parts: nn.ParameterList) -> Tensor:
        """Join all components, (n_blocks, n_components, ...); only present ones have gradients."""
        own = self.index
        return torch.cat([p if i == own else p.detach() for i, p in enumerate(parts)], dim=1)

    def weights(self, query: Tensor) -> Tensor:
        """Weigh components for queries (B, width): (n_blocks, B, n_components)."""
        keys, attention = self._all(self.keys), self._all(self.attention)
        # cos(q * A, K) as two products of matrices: q * A would have B n_components rows.
        with comparing(query.device):
            dots = query @ (attention * normalize(keys, dim=-1)).mT
            squared_norms = query.square() @ attention.square().mT
        return dots / squared_norms.clamp_min(1e-12).sqrt()

    def prompts_for(self, query: Tensor) -> Tensor:
        """Return the prompts of queries (B, width): (B, n_blocks, length, width)."""
        return torch.einsum("nbm,nmld->bnld", self.weights(query), self._all(self.prompts))

    def penalty(self) -> Tensor:
        """Return the departure of the components learned so far from orthonormality, a scalar."""
        learned = (self.index + 1) * (self.components // self.info.n_experiences)
        departures = []
        for parts in (self.prompts, self.keys, self.attention):
            rows = self._all(parts)[:, :learned].flatten(2)  # B of each block
            identity = torch.eye(rows.shape[1], device=rows.device)
            with comparing(rows.device):
                departures.append((rows @ rows.mT - identity).square().mean((-2, -1)).sum())
        return torch.stack(departures).sum()

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss + self.orthogonality * self.penalty() if self.orthogonality else loss

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        attached = prefixes(self.prompts_for(self.query(x, features)), self.blocks)
        tokens = self.model.encode(self.model.embed(x), attached)
        return self.classify(self.model.pool(tokens), task)


def orthonormal(new: Tensor, earlier: Iterable[Tensor]) -> Tensor:
    """Make vectors orthonormal, and orthogonal to all earlier ones (Gram-Schmidt).

    Args:
        new: (..., n, D).
        earlier: each (..., k, D); with `new` at most D vectors in all.
    """
    rows = torch.cat([*earlier, new], dim=-2)
    basis: Tensor = torch.linalg.qr(rows.mT).Q.mT
    return basis[..., -new.shape[-2] :, :]
