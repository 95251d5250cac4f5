"""Evaluation: every experience, under every mask, in one pass over resident tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl_platform.errors import ContractError
from cl_platform.matrix import MASKS, Mask
from cl_platform.strategy import Strategy
from cl_platform.stream import Stream

CHUNK = 1000  # samples in one forward pass
RESIDENT_BYTES = 2**30  # larger test sets are gathered and normalised anew at each evaluation

Split = Literal["test", "validation"]
Row = dict[str, dict[str, float]]
"""Accuracy by mask and experience identity."""


@dataclass(frozen=True, eq=False)
class _Chunk:
    x: Tensor
    y: Tensor
    task: Tensor
    column: Tensor


class Evaluator:
    """Scores a strategy on one split of all experiences of a stream.

    Accuracy is the expected one under fair tie-breaking: a sample whose right class shares the
    largest logit with k-1 others counts 1/k. A constant output therefore scores 1/n_classes
    whatever the numbering of the classes, where an argmax would favour class 0.
    """

    def __init__(self, stream: Stream, device: torch.device, split: Split = "test") -> None:
        self.stream = stream
        # By task label: the bits of a score must not depend on the order of learning.
        self.experiences = sorted(stream.experiences, key=lambda e: e.task)
        self.device = device
        self.split = split
        self.task_classes = stream.task_classes().to(device)
        samples = sum(len(getattr(e, split)) for e in self.experiences)
        values = 4 * self.experiences[0].train.source[0].numel()
        self._resident: list[_Chunk] | None = None
        if samples * values <= RESIDENT_BYTES:
            self._resident = list(self._read())

    @torch.inference_mode()
    def __call__(self, strategy: Strategy, seen: set[int]) -> Row:
        """Accuracy on each experience by mask.

        Args:
            seen: classes of the experiences learned so far, for the mask ``seen``.
        """
        was_training = strategy.training
        strategy.eval()
        masks: tuple[Mask, ...] = ("task",) if strategy.needs_task else MASKS
        allowed = {"seen": torch.zeros_like(self.task_classes[:1])}
        allowed["seen"][0, list(seen)] = True
        allowed["all"] = torch.ones_like(allowed["seen"])
        n = len(self.stream)
        right = {m: torch.zeros(n, dtype=torch.float64, device=self.device) for m in masks}
        for chunk in self._resident if self._resident is not None else self._read():
            logits = strategy(chunk.x, chunk.task if strategy.needs_task else None)
            check_logits(logits, len(chunk.y), self.stream.n_classes)
            for mask in masks:
                mine = self.task_classes[chunk.task] if mask == "task" else allowed[mask]
                right[mask].index_add_(0, chunk.column, credit(logits, chunk.y, mine))
        strategy.train(was_training)
        sizes = [len(getattr(e, self.split)) for e in self.experiences]
        return {
            mask: {
                e.identity: total / size
                for e, total, size in zip(self.experiences, totals.tolist(), sizes, strict=True)
            }
            for mask, totals in right.items()
        }

    def _read(self) -> Iterator[_Chunk]:
        """The samples by task label, in chunks that may hold several experiences."""
        pending: list[tuple[Tensor, Tensor, int, int]] = []
        held = 0
        for column, e in enumerate(self.experiences):
            samples = getattr(e, self.split)
            for rows in torch.arange(len(samples), device=samples.index.device).split(CHUNK):
                if held + len(rows) > CHUNK:
                    yield self._chunk(pending)
                    pending, held = [], 0
                raw = samples.gather(rows).to(self.device)
                pending.append((raw, samples.y[rows].to(self.device), e.task, column))
                held += len(rows)
        if pending:
            yield self._chunk(pending)

    def _chunk(self, parts: list[tuple[Tensor, Tensor, int, int]]) -> _Chunk:
        y = torch.cat([p[1] for p in parts])
        task = torch.cat([torch.full_like(p[1], p[2]) for p in parts])
        column = torch.cat([torch.full_like(p[1], p[3]) for p in parts])
        x = self.stream.preprocess(torch.cat([p[0] for p in parts]))
        return _Chunk(x, y, task, column)


def check_logits(logits: Tensor, n: int, n_classes: int) -> None:
    """Whether `logits` is what ``forward`` should return.

    Raises:
        ContractError: it is not (n, n_classes) floats.
    """
    if tuple(logits.shape) != (n, n_classes) or not logits.is_floating_point():
        raise ContractError(
            f"forward returned {tuple(logits.shape)} {logits.dtype}: expected logits of shape "
            f"{(n, n_classes)}, one per class of the stream"
        )


def credit(logits: Tensor, y: Tensor, allowed: Tensor) -> Tensor:
    """What each sample earns: 1 if its class alone has the largest allowed logit, 1/k if k do.

    Args:
        logits: (B, n_classes); y: (B,) class indices.
        allowed: (B or 1, n_classes) bool, the classes that may be predicted.

    Returns:
        (B,) float64. A sample whose logits are nan, or whose class is not allowed, earns 0.
    """
    masked = logits.masked_fill(~allowed, -torch.inf)
    best = (masked == masked.amax(1, keepdim=True)) & allowed
    mine = best.gather(1, y[:, None]).squeeze(1)
    return mine.double() / best.sum(1).clamp(min=1)
