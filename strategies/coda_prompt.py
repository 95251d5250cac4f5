"""CODA-Prompt."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.errors import BadInput
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.prefixes import Length, check_blocks, prefixes


class CODAPrompt(FrozenBackbone):
    """Prompts are sums of components, weighted by how well an input's query fits their keys.

    Source: Smith et al. 2023, "CODA-Prompt: COntinual Decomposed Attention-based Prompting for
    Rehearsal-Free Continual Learning". At every block component m has a prompt P_m, a key K_m and
    an attention A_m; a query q gets the prompt sum_m cos(q * A_m, K_m) P_m, a prefix. Each of T
    experiences adds components // T of them, and trains these alone; earlier ones are used as they
    are. What division leaves over is not used, so that no place in the order has more than another.

    New P, K and A are made orthonormal, and orthogonal to all earlier ones (Gram-Schmidt), as in
    the authors' updated code, where this takes the place of the paper's penalty; `orthogonality`
    brings that back. Training leaves the earlier ones oblique; the new ones are orthogonal to all
    that they span. The head starts at zero.

    Args:
        components: of all experiences together, at most as many as the model is wide: more cannot
            be orthogonal.
        length: tokens of a prompt, half of them before the keys and half before the values.
        blocks: where prompts are attached, from 0.
        orthogonality: weight of the mean square of the entries of B B^T - I, summed over B = P, K
            and A (one component a row) and over blocks; the mean is the authors' code's.
    """

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
        self.prompts = self._nothing(self.length, width)
        self.keys, self.attention = self._nothing(width), self._nothing(width)

    def _nothing(self, *shape: int) -> nn.ParameterList:
        """Zeros for the components of each experience, (n_blocks, components // T, *shape): what is
        still to be learned adds nothing to a prompt."""
        n = self.info.n_experiences
        size = (len(self.blocks), self.components // n, *shape)
        zeros = (torch.zeros(size, device=self.info.device) for _ in range(n))
        return nn.ParameterList(nn.Parameter(z) for z in zeros)

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        for parts in (self.prompts, self.keys, self.attention):
            own, earlier = parts[self.index], [part.flatten(2) for part in parts[: self.index]]
            with torch.no_grad():
                own.copy_(orthonormal(torch.randn_like(own).flatten(2), earlier).view_as(own))

    def _all(self, parts: nn.ParameterList) -> Tensor:
        """Of all components, (n_blocks, n_components, ...); those of other experiences than the
        present one are constants."""
        own = self.index
        return torch.cat([p if i == own else p.detach() for i, p in enumerate(parts)], dim=1)

    def weights(self, query: Tensor) -> Tensor:
        """Of each component in the prompts of queries (B, width): (n_blocks, B, n_components)."""
        keys, attention = self._all(self.keys), self._all(self.attention)
        # cos(q * A, K) as two products of matrices, without q * A, which has B n_components rows.
        dots = query @ (attention * normalize(keys, dim=-1)).mT
        squared_norms = query.square() @ attention.square().mT
        return dots / squared_norms.clamp_min(1e-12).sqrt()

    def prompts_for(self, query: Tensor) -> Tensor:
        """The prompts of queries (B, width): (B, n_blocks, length, width)."""
        return torch.einsum("nbm,nmld->bnld", self.weights(query), self._all(self.prompts))

    def penalty(self) -> Tensor:
        """How far what is known so far is from orthonormal; 0 if it is."""
        known = (self.index + 1) * (self.components // self.info.n_experiences)
        parts = [self.prompts, self.keys, self.attention]
        return torch.stack([_departure(self._all(p)[:, :known].flatten(2)) for p in parts]).sum()

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
    """Gram-Schmidt: vectors made orthonormal, and orthogonal to all earlier ones.

    Args:
        new: (..., n, D).
        earlier: each (..., k, D); with `new` at most D vectors in all.
    """
    rows = torch.cat([*earlier, new], dim=-2)
    basis: Tensor = torch.linalg.qr(rows.mT).Q.mT
    return basis[..., -new.shape[-2] :, :]


def _departure(rows: Tensor) -> Tensor:
    """The mean square of the entries of B B^T - I, summed over blocks; B is (n_blocks, k, D)."""
    identity = torch.eye(rows.shape[1], device=rows.device)
    return (rows @ rows.mT - identity).square().mean((-2, -1)).sum()
