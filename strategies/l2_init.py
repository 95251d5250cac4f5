"""L2 regularisation towards the initial weights."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat

from cl_platform import StreamInfo
from strategies.parts.quadratic import Penalised


class L2Init(Penalised):
    """Fine-tuning with a penalty on the distance from the initial weights, so that units that new
    data do not need drift back to where they could learn again.

    Source: Kumar et al. 2023, "Maintaining Plasticity in Continual Learning via Regenerative
    Regularization", Section 4. All parameters of the model are held, from the first step on.

    Args:
        strength: the loss is cross-entropy + strength/2 ||theta - theta_0||^2; the paper has no
            1/2, so that its lambda (1e-5 to 1e-2) is half of this.
    """

    strength: NonNegativeFloat = 0.01

    @property
    def holds(self) -> bool:
        return True

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        start = self.penalty.anchor.clone()
        self.penalty.replace(torch.ones_like(start), start)
