"""Elastic weight consolidation."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from cl_platform import Experience
from strategies.parts.fisher import Estimate, diagonal_fisher
from strategies.parts.gradients import flatten, trainable
from strategies.parts.quadratic import Penalised


class EWC(Penalised):
    """EWC: a quadratic penalty holds each parameter in proportion to its Fisher information.

    Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", Eq. 3
    (one penalty per experience); ``mode=online`` is Schwarz et al. 2018, "Progress & Compress",
    Section 3.1 (one decaying Fisher, anchored at the latest parameters). The penalties of all
    experiences are stored as one quadratic, which is exact.

    Args:
        strength: lambda; the loss is cross-entropy + lambda/2 sum F (theta - theta*)^2. Avalanche
            omits the 1/2: its ``ewc_lambda`` is half of this.
        mode: ``separate`` or ``online``.
        decay: of the old Fisher information at each experience, in online mode (their gamma).
        fisher: the estimate, see :func:`strategies.parts.fisher.diagonal_fisher`.
        fisher_samples: samples of an experience used for it; None uses all.
        fisher_batch_size: for ``fisher=batch``, whose result depends on it.
    """

    needs_second_pass = True

    strength: NonNegativeFloat = 10.0
    mode: Literal["separate", "online"] = "separate"
    decay: NonNegativeFloat = 1.0
    fisher: Estimate = "empirical"
    fisher_samples: PositiveInt | None = 1000
    fisher_batch_size: PositiveInt = 256

    def end_experience(self, experience: Experience) -> None:
        new = diagonal_fisher(
            self, experience, self.fisher, self.fisher_samples, self.fisher_batch_size
        )
        here = flatten(trainable(self.model))
        if self.mode == "separate":
            self.penalty.add(new, here)
        else:
            self.penalty.replace(self.decay * self.penalty.importance + new, here)
