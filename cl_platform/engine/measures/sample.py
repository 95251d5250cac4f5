"""A fixed sample of a stream's data, the same for every state of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Samples

MOST = 1000  # samples
ROWS = 125  # in one forward pass; on a CPU more would leave its caches

Inputs = tuple[Tensor, ...]
"""As the model sees them: inputs (B, ...), task labels (B,), and cached features (B, D) if any."""


class Sample:
    """Rows of several samples, spread evenly over all of them.

    Args:
        parts: task labels and samples.
        features: gives the samples with features as inputs, for strategies that take them.
        n: how many rows at most.
    """

    def __init__(
        self,
        parts: Sequence[tuple[int, Samples]],
        preprocess: Preprocess,
        device: torch.device,
        features: Callable[[Samples], Samples] | None = None,
        n: int = MOST,
    ) -> None:
        self.parts, self.preprocess, self.device, self.features = (
            parts,
            preprocess,
            device,
            features,
        )
        self.ends = torch.tensor([len(samples) for _, samples in parts]).cumsum(0)
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
        label, samples = self.parts[j]
        own = (rows - (self.ends[j] - len(samples))).to(samples.index.device)
        x = self.preprocess(samples.gather(own).to(self.device))
        task = torch.full((len(own),), label, device=self.device)
        if self.features is None:
            return x, task
        return x, task, self.features(samples).gather(own).to(self.device)
