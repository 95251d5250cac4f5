"""Learning without forgetting."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import kl_div

from cl_platform import Batch, Experience, Strategy, StreamInfo
from strategies.parts.snapshot import Snapshot


class LwF(Strategy):
    """LwF: distillation on the new data keeps the outputs for old classes near the former ones.

    Source: Li & Hoiem 2017, "Learning without Forgetting", Eq. 2 and 3, as a Kullback-Leibler
    divergence (the cross-entropy up to a constant). Task-incremental streams have one distillation
    per past head, others one over all classes seen. Tasks with the same classes share a head.

    Args:
        alpha: weight of the distillation; a list has one weight per experience.
        temperature: of both distributions; the divergence is not multiplied by its square.
        balance: weigh the cross-entropy of the k-th experience by 1/k (van de Ven et al. 2018).
        rivals: which outputs share the new model's distribution in the distillation: those of
            ``old`` classes, as in the paper, or also those of the present experience (``seen``),
            whose probability it then pushes towards 0 (van de Ven et al. 2022; one head only).
    """

    alpha: NonNegativeFloat | list[NonNegativeFloat] = 1.0
    temperature: PositiveFloat = 2.0
    balance: bool = False
    rivals: Literal["old", "seen"] = "old"

    per_experience = ("alpha",)

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.teacher = Snapshot(self.model)
        # The classes seen by each head: one head per task where tasks are known, else a single one.
        heads = len(info.task_classes) if info.scenario == "task" else 1
        seen = torch.zeros(heads, info.n_classes, dtype=torch.bool, device=info.device)
        self.seen = nn.Buffer(seen)
        self.heads: list[Tensor] = []

    def begin_experience(self, experience: Experience) -> None:
        self.teacher.take(self.model)
        distinct = dict.fromkeys(tuple(head.nonzero().flatten().tolist()) for head in self.seen)
        self.heads = [self.seen.new_tensor(head, dtype=torch.int64) for head in distinct if head]
        new = torch.zeros_like(self.seen[0])
        if self.rivals == "seen" and len(self.seen) == 1:
            new[list(experience.classes)] = True
        self.new = torch.nonzero(new & ~self.seen[0]).flatten()

    def loss(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model(batch.x)
        loss = self.cross_entropy(self.restrict(logits, batch.task), batch)
        if self.balance:
            loss = loss / (self.index + 1)
        alpha = self.alpha[self.index] if isinstance(self.alpha, list | tuple) else self.alpha
        if not self.heads or not alpha:
            return loss
        return loss + alpha * self.distillation(logits, self.teacher(batch.x))

    def distillation(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum the divergence from the teacher's logits (B, n_classes) over heads, a scalar."""
        terms = []
        for classes in self.heads:
            rivals = torch.cat([classes, self.new]) if len(self.new) else classes
            new = (logits.index_select(1, rivals) / self.temperature).log_softmax(1)
            old = (targets.index_select(1, classes) / self.temperature).log_softmax(1)
            new = new[:, : len(classes)] if len(self.new) else new
            terms.append(kl_div(new, old, reduction="batchmean", log_target=True))
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def end_experience(self, experience: Experience) -> None:
        head = experience.task if self.info.scenario == "task" else 0
        self.seen[head, list(experience.classes)] = True
