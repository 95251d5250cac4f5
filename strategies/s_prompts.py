"""S-Prompts: experiences are learned independently and recognised by features of the inputs."""

from __future__ import annotations

from copy import deepcopy

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.models.precision import in_float32
from strategies.parts.centroids import Centroids
from strategies.parts.frozen import FrozenBackbone


class SPrompts(FrozenBackbone):
    """A prompt and a classifier per experience, which no other experience changes.

    Source: Wang et al. 2022, "S-Prompts Learning with Pre-trained Transformers: An Occam's Razor
    for Domain Incremental Learning", S-iPrompts. An input uses the prompt and the classifier of the
    experience it probably comes from, by :class:`Centroids` of the frozen model's features; task
    labels, where there are any, only restrict the classes. Prompts start uniform within
    ``1/sqrt(width)``, as in the authors' code.

    Differences from that code: distances are Euclidean (there sums of absolute differences);
    centroids are computed before an experience is trained, so that an evaluation during it works
    like one at its end; prompts come before all tokens (there behind the class token), which makes
    no difference to attention, since they have no position.

    Args:
        length: tokens of a prompt.
        centroids: number of them per experience.
        shared_head: one classifier, trained by all experiences in turn; else one for each, which
            predicts classes of its experience only: all other logits are the lowest number.
    """

    needs_second_pass = True

    length: PositiveInt = 10
    centroids: PositiveInt = 5
    shared_head: bool = False

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        n, width, device = info.n_experiences, self.model.width, info.device
        bound = width**-0.5
        self.prompts = nn.ParameterList(
            torch.empty(self.length, width, device=device).uniform_(-bound, bound) for _ in range(n)
        )
        self.heads = nn.ModuleList()
        if not self.shared_head:
            self.heads.extend(deepcopy(self.head) for _ in range(n))
            del self.head
        self.selector = Centroids(n, width, self.centroids, device)
        self.classes = nn.Buffer(torch.zeros(n, info.n_classes, dtype=torch.bool, device=device))
        self.recognised = nn.Buffer(torch.zeros(n, device=device))

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.classes[self.index] = self.present
        for own in (self.prompts, self.heads):
            own.requires_grad_(False)[self.index : self.index + 1].requires_grad_(True)
        queries = [self.query(b.x, b.features) for b in self.batches(experience)]
        self.selector.add(self.index, torch.cat(queries))
        nearest = torch.cat([self.selector.nearest(query) for query in queries])
        self.recognised[self.index] = (nearest == self.index).float().mean()

    def represent(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Return the feature (B, width) of inputs under prompts, (L, width) or (B, L, width)."""
        tokens = self.model.encode(self.model.embed(x).prepend(prompts))
        _, own = tokens.split(self.length)
        return self.model.pool(own)

    def loss(self, batch: Batch) -> Tensor:
        feature = self.represent(batch.x, self.prompts[self.index])
        head = self.head if self.shared_head else self.heads[self.index]
        logits = self.restrict(in_float32(head, feature), batch.task)
        return self.cross_entropy(logits, batch)

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        nearest = self.selector.nearest(self.query(x, features))  # indices of experiences, (B,)
        feature = self.represent(x, torch.stack(list(self.prompts))[nearest])
        if self.shared_head:
            return self.classify(feature, task)
        by_all = torch.stack([in_float32(head, feature) for head in self.heads], dim=1)
        logits = by_all[torch.arange(x.shape[0], device=x.device), nearest]
        logits = logits.masked_fill(~self.classes[nearest], torch.finfo(logits.dtype).min)
        return self.restrict(logits, task)

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return the share of the last experience's training samples nearest to its centroids."""
        return {"recognised": self.recognised[self.index].item()}
