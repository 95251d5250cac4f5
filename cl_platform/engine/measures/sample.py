"""A fixed sample of the data of all experiences, the same for every state of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Samples
from cl_platform.core.stream import Experience

MOST = 1000  # samples
ROWS = 125  # in one forward pass; on a CPU more would leave its caches

Inputs = tuple[Tensor, ...]
"""As the model sees them: inputs (B, ...), task labels (B,), and cached features (B, D) if any."""


class Sample:
    """Rows of the data, spread evenly over all experiences in the order of their tasks.

    Args:
        features: gives the samples with features as inputs, for strategies that take them.
        n: how many at most.
    """

    def __init__(
        self,
        experiences: Sequence[Experience],
        preprocess: Preprocess,
        device: torch.device,
        features: Callable[[Samples], Samples] | None,
        split: Literal["test", "train"] = "test",
        n: int = MOST,
    ) -> None:
        self.experiences = sorted(experiences, key=lambda e: e.task)
        self.preprocess, self.device, self.features = preprocess, device, features
        self.samples: list[Samples] = [getattr(e, split) for e in self.experiences]
        self.ends = torch.tensor([len(samples) for samples in self.samples]).cumsum(0)
        total = int(self.ends[-1])
        self.rows = torch.arange(min(n, total)) * total // min(n, total)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Inputs]:
        """Yield them, some rows at a time."""
        for rows in self.rows.split(ROWS):
            owners = torch.bucketize(rows, self.ends, right=True)
            parts = [self._part(int(j), rows[owners == j]) for j in owners.unique()]
            yield tuple(torch.cat(values) for values in zip(*parts, strict=True))

    def _part(self, j: int, rows: Tensor) -> Inputs:
        samples = self.samples[j]
        own = (rows - (self.ends[j] - len(samples))).to(samples.index.device)
        x = self.preprocess(samples.gather(own).to(self.device))
        task = torch.full((len(own),), self.experiences[j].task, device=self.device)
        if self.features is None:
            return x, task
        return x, task, self.features(samples).gather(own).to(self.device)
