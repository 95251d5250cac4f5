"""Incremental classifier and representation learning."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from cl_platform import Batch, Chunk, ClassBalancedBuffer, Experience, Strategy, StreamInfo
from cl_platform.core.batch import soft_labels
from cl_platform.errors import BadInput
from cl_platform.models.precision import comparing
from strategies.parts.snapshot import Snapshot


class ICaRL(Strategy):
    """iCaRL: exemplars chosen by herding, distillation, and the nearest mean of exemplars.

    Source: Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning",
    Algorithms 1 to 5. The loss is the binary cross-entropy summed over the classes seen: new
    classes against labels, old ones against the outputs of the model before. Exemplars are drawn in
    proportion to their number instead of being joined to the data set. Needs a model with
    `features` and a linear `classifier`.

    Args:
        memory_size: exemplars in all, shared equally by the classes seen.
        memory_batch_size: exemplars drawn per step; None draws in proportion to their share of the
            data.
    """

    needs_second_pass = True
    revisits = False  # exemplars are chosen once, among all samples of a class
    refuses = ("ema",)  # the means of classes are features under the weights that are trained

    memory_size: PositiveInt = 1000
    memory_batch_size: PositiveInt | None = None

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if info.task_classes.sum(0).max() > 1:
            raise BadInput(
                "icarl needs new classes in every experience; give a class or task stream"
            )
        if not hasattr(self.model, "features") or not hasattr(self.model, "classifier"):
            raise BadInput(
                "icarl needs a model with `features` and a linear `classifier`; "
                f"{type(self.model).__name__} lacks them: give --model mlp, cnn or slim-resnet18"
            )
        self.teacher = Snapshot(self.model)
        self.buffer = HerdedBuffer(self.memory_size, info)
        width = int(self.model.classifier.in_features)  # type: ignore[union-attr,arg-type]
        self.seen = nn.Buffer(torch.zeros(info.n_classes, dtype=torch.bool, device=info.device))
        self.means = nn.Buffer(torch.zeros(info.n_classes, width, device=info.device))

    def begin_experience(self, experience: Experience) -> None:
        self.teacher.take(self.model)
        self.old = self.seen.clone()
        self.present = self.seen.clone()
        self.present[list(experience.classes)] = True
        self.share = len(self.buffer) / len(experience.train)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        n = self.memory_batch_size or [math.ceil(self.share * size) for size in chunk.sizes]
        return self.buffer.replay(chunk, n, offer=False)

    def loss(self, batch: Batch) -> Tensor:
        target = soft_labels(batch, self.present, self.info.label_smoothing)
        if self.share:
            target = torch.where(self.old, self.teacher(batch.x).sigmoid(), target)
        terms = binary_cross_entropy_with_logits(self.model(batch.x), target, reduction="none")
        return (terms * self.present).sum(1).mean()

    @torch.no_grad()
    def end_experience(self, experience: Experience) -> None:
        self.model.eval()
        self.buffer.make_room(experience.classes)
        for c in sorted(experience.train.classes):
            self._store_exemplars(experience, c)
            self.seen[c] = True
        sums = torch.zeros_like(self.means)
        for rows in self.buffer.rows().split(1000):
            sums.index_add_(0, self.buffer.y[rows], self._features(self.buffer.plain(rows)))
        self.means.copy_(normalize(sums, dim=1))  # of a mean or of a sum, the direction is the same
        self.model.train()

    def _store_exemplars(self, experience: Experience, c: int) -> None:
        rows = torch.nonzero(experience.train.y == c).flatten()
        batches = list(self.batches(experience.subset(rows)))
        chosen = herd(torch.cat([self._features(b.x) for b in batches]), self.buffer.quota)
        raw = torch.cat([b.raw for b in batches])[chosen]
        y = torch.full_like(chosen, c)
        task = torch.full_like(chosen, experience.task) if batches[0].task is not None else None
        self.buffer.add(Batch(raw, y, task, raw))

    def _features(self, x: Tensor) -> Tensor:
        """Return features (B, F) of unit length, which are compared in float32."""
        return normalize(self.model.features(x).float(), dim=1)  # type: ignore[operator]

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return minus the squared distance to each class's mean, -inf without exemplars."""
        features = self._features(x)
        with comparing(features.device):
            closeness = 2 * features @ self.means.T - 2  # both have unit length
        return self.restrict(closeness.masked_fill(~self.seen, -torch.inf), task)


class HerdedBuffer(ClassBalancedBuffer):
    """A class-balanced memory whose classes are filled by rank and lose the last ranks first."""

    def _permutation(self, n: int) -> Tensor:
        return torch.arange(n, device=self.y.device)


def herd(features: Tensor, n: int) -> Tensor:
    """Return the `n` rows of (N, F) whose running mean stays nearest to the mean of all, in order.

    Source: iCaRL, Algorithm 4 (Welling 2009, herding). At most N rows, (min(n, N),).
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    squares = features.square().sum(1)
    chosen = []
    for k in range(1, min(n, len(features)) + 1):
        # |k mean - total - f|^2 without what is the same for all f
        with comparing(features.device):
            distance = squares - 2 * (features @ (k * mean - total))
        best = distance.argmin(0, keepdim=True)
        chosen.append(best)
        total = total + features.index_select(0, best)[0]
        squares.index_fill_(0, best, torch.inf)
    return torch.cat(chosen)
