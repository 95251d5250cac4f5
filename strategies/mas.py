"""Memory-aware synapses."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cl_platform import Experience
from strategies.parts.gradients import flatten, sample_gradients, trainable
from strategies.parts.quadratic import Penalised


class MAS(Penalised):
    """MAS: a quadratic penalty holds each parameter in proportion to the output's sensitivity.

    Source: Aljundi et al. 2018, "Memory Aware Synapses: Learning what (not) to forget", Eq. 3 and
    4: the importance is the mean over samples of the absolute gradient of the squared norm of the
    logits, summed over experiences. The authors' code takes it of whole batches, which is smaller.
    The logits are those of the classes seen so far, or in task-incremental streams of the
    experience's own (there, a head per task): others mean nothing yet and would only be held at
    random values.

    Args:
        strength: the loss is cross-entropy + strength/2 sum Omega (theta - theta*)^2; twice the
            lambda of the paper.
        samples: samples of an experience for the estimate; None uses all.
    """

    needs_second_pass = True

    strength: NonNegativeFloat = 0.1
    samples: PositiveInt | None = 1000

    def end_experience(self, experience: Experience) -> None:
        importance = self.penalty.importance + self.sensitivity(experience)
        self.penalty.replace(importance, flatten(trainable(self.model)))

    def sensitivity(self, experience: Experience) -> Tensor:
        """Compute the mean absolute gradient of the squared norm of the trained logits, (P,)."""
        trained = self.info.seen
        if self.info.scenario == "task":
            trained = self.info.task_classes[experience.task]
        classes = trained.nonzero().flatten()

        def squared_norm(logits: Tensor) -> Tensor:
            return logits[:, classes].square().sum()

        total, n = torch.zeros_like(self.penalty.importance), 0
        for batch in self.batches(experience, samples=self.samples):
            n += len(batch)
            for gradients in sample_gradients(self.model, squared_norm, batch.x):
                total += gradients.abs_().sum(0)
        return total / n
