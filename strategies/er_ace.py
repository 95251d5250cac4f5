"""Experience replay with asymmetric cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl_platform import Batch, StreamInfo
from strategies.er import ER


class ERACE(ER):
    """ER-ACE: new samples compete with the classes of their batch only, old ones with all seen.

    Source: Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online
    Continual Learning", Eq. 1: L(old, classes seen) + L(new, classes of the batch), each a mean.
    In the authors' code new samples also compete with classes not seen yet; here, as in the paper,
    they do not. Arguments as for ``er``.
    """

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.seen = nn.Buffer(torch.zeros(info.n_classes, dtype=torch.bool, device=info.device))

    def loss(self, batch: Batch) -> Tensor:
        new, old = batch.new, batch.old
        present = torch.zeros_like(self.seen).index_fill(0, new.y, True)
        logits = self.model(batch.x)
        new_logits, old_logits = logits.split([len(new), len(old)])
        new_logits = self.restrict(new_logits, new.task).masked_fill(~present, -torch.inf)
        loss = self.cross_entropy(new_logits, new)
        if len(old):
            seen = self.seen | present
            old_logits = self.restrict(old_logits, old.task).masked_fill(~seen, -torch.inf)
            loss = loss + self.cross_entropy(old_logits, old)
        return loss

    def after_step(self, batch: Batch) -> None:
        self.seen.index_fill_(0, batch.y, True)
