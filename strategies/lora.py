"""Low-rank adaptation of a frozen transformer: one set of adapters, one per task, a pool."""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.models.backbone import Projection
from cl_platform.models.precision import in_float32
from strategies.parts.adapters import Adapters, Updates, by_sample, summed
from strategies.parts.centroids import Centroids
from strategies.parts.corda import Init, factors_of
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.pool import Pool


class Adapted(FrozenBackbone):
    """A frozen transformer whose attention has low-rank updates; the head sees its feature.

    Args:
        rank: of the update of a weight.
        alpha: updates are scaled by ``alpha / rank``.
        targets: the projections of every block that are updated.
    """

    rank: PositiveInt = 4
    alpha: PositiveFloat = 4.0
    targets: tuple[Literal["query", "key", "value"], ...] = ("query", "value")

    @property
    def projections(self) -> dict[str, Projection]:
        """Return the projections that are updated, by name."""
        everywhere = self.model.projections().items()
        return {name: found for name, found in everywhere if name.split(".")[-1] in self.targets}

    def new_adapters(self, n: int | None = None, origin: bool = False) -> Adapters:
        return Adapters(self.projections, self.rank, self.alpha, n, origin).to(self.info.device)

    def adapted(self, x: Tensor, updates: Updates) -> Tensor:
        """Return the feature (B, width) of inputs (B, ...) under updates."""
        return self.model.pool(self.model.encode(self.model.embed(x), updates=updates))


def each(modules: nn.ModuleList) -> list[Adapters]:
    """Return the adapters of a list with their type, which ModuleList does not keep."""
    return cast(list[Adapters], list(modules))


class Initialised(Adapted):
    """Adapters that may start from components of the weights; see :mod:`strategies.parts.corda`.

    Args:
        init: ``kaiming`` starts at the frozen weights with a random direction; ``pissa`` trains
            their largest components; ``corda-preserve`` and ``corda-preview`` the smallest and the
            largest in the context of the experience's inputs.
        calibration: number of training samples for this context, drawn at random.
    """

    init: Init = "kaiming"
    calibration: PositiveInt = 256

    @property
    def needs_second_pass(self) -> bool:  # type: ignore[override]
        """Whether adapters start from the data: they are read before training then."""
        return self.init != "kaiming"

    def start(self, adapters: Adapters, experience: Experience) -> None:
        if self.init == "kaiming":
            adapters.start()
        else:
            data = (batch.x for batch in self.batches(experience, samples=self.calibration))
            factors = factors_of(self.init, self.model, self.projections, self.rank, data)
            adapters.start_from(factors)


class SeqLoRA(Initialised):
    """One set of adapters and one head, fine-tuned from experience to experience.

    Source: Hu et al. 2022, "LoRA"; as the baseline of sequential fine-tuning in Wang et al. 2023,
    "Orthogonal Subspace Learning for Language Model Continual Learning". Nothing prevents
    forgetting.
    """

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.adapters = self.new_adapters(origin=self.init != "kaiming")

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        if self.index == 0 and not self.returning:
            self.start(self.adapters, experience)

    def updates(self) -> Updates:
        """Return the updates of all inputs."""
        return self.adapters.updates()

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        return self.classify(self.adapted(x, self.updates()), task)


class LoRA(Initialised):
    """Adapters and a head for every task, which is known at test time: nothing is forgotten.

    Source: Hu et al. 2022, "LoRA". Adapters and heads belong to task labels; those of other tasks
    are not trained. Tasks that were not learned have the frozen feature and equal logits.
    """

    needs_task = True

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        n, origin = info.n_experiences, self.init != "kaiming"
        del self.head  # every task has its own
        self.heads = nn.ModuleList(self.new_head() for _ in range(n))
        self.adapters = nn.ModuleList(self.new_adapters(origin=origin) for _ in range(n))

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.task = experience.task
        for module in (self.heads, self.adapters):
            module.requires_grad_(False)
            module[self.task].requires_grad_(True)
        if not self.returning:
            self.start(each(self.adapters)[self.task], experience)

    def updates(self) -> list[Updates]:
        """Return the updates by task label."""
        return [adapters.updates() for adapters in each(self.adapters)]

    def loss(self, batch: Batch) -> Tensor:
        # All samples belong to the present task: one update for the whole batch.
        feature = self.adapted(batch.x, self.updates()[self.task])
        logits = in_float32(self.heads[self.task], feature)
        return self.cross_entropy(self.restrict(logits, batch.task), batch)

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        assert task is not None, "strategies that need task labels get them"
        feature = self.adapted(x, by_sample(self.updates(), task))
        logits = torch.stack([in_float32(head, feature) for head in self.heads], dim=1)
        return self.restrict(logits[torch.arange(x.shape[0], device=x.device), task], task)


class SLoRA(LoRA):
    """LoRA without task labels at test time: a sample is of the task of the nearest centroid.

    Source: Wistuba et al. 2024, "Choice of PEFT Technique in Continual Learning: Prompt Tuning is
    Not All You Need": S-Prompts (Wang et al. 2022) with low-rank updates in place of prompts.
    Centroids are K-means centres of the frozen model's features; each sample of a batch uses the
    adapters and the head of its recognised task, whose classes alone it can get: all other logits
    are the lowest number. Centroids are added before training, so that an evaluation during an
    experience works in the same way.

    Args:
        centroids: K; five in S-Prompts.
    """

    needs_task = False
    needs_second_pass = True

    centroids: PositiveInt = 5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        n, width = info.n_experiences, self.model.width
        self.selector = Centroids(n, width, self.centroids, info.device)
        self.recognised = nn.Buffer(torch.zeros(n, device=info.device))

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        queries = [self.query(batch.x, batch.features) for batch in self.batches(experience)]
        self.selector.add(self.task, torch.cat(queries))
        right = torch.cat([self.selector.nearest(query) == self.task for query in queries])
        self.recognised[self.task] = right.float().mean()

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        if task is not None:
            return super().forward(x, task)
        logits = super().forward(x, self.selector.nearest(self.query(x, features)))
        # Finite, so that a sample of a task that is known but was not recognised has probabilities.
        return logits.clamp(min=torch.finfo(logits.dtype).min)

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return the share of each task's training samples recognised when the task was new."""
        return {"recognised": self.recognised.tolist()}


class L2PLoRA(Adapted, Pool):
    """A pool of adapters; every input uses the sum of those whose keys are nearest to its query.

    Source: Wistuba et al. 2024, "Choice of PEFT Technique in Continual Learning": "Learning to
    Prompt" with low-rank updates in place of prompts, and the same keys, queries, selection and
    loss. The head sees the backbone's pooled feature.
    """

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.adapters = self.new_adapters(self.pool_size)
        self.adapters.start()

    def items(self) -> list[nn.Parameter]:
        return [self.adapters.down, self.adapters.up]

    def represent(self, x: Tensor, chosen: Tensor) -> Tensor:
        return self.adapted(x, summed([self.adapters.updates(sets) for sets in chosen.unbind(1)]))
