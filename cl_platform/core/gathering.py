"""Gathers the predictions of an evaluation on their device, and packs them for a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cl_platform.core.predictions import NO_CLASS, TOP

MOST_UINT16 = torch.iinfo(torch.uint16).max  # classes; the last number stands for no class


class Gathering:
    """Takes the predictions of one evaluation, chunk after chunk, without waiting for the device.

    Args:
        n: samples in all.
        with_scores: whether all probabilities are gathered as well.
    """

    def __init__(self, n: int, n_classes: int, with_scores: bool, device: torch.device) -> None:
        self.n_classes = n_classes
        self.end = 0  # of what has been gathered
        self.top = torch.empty(n, min(TOP, n_classes), dtype=torch.int32, device=device)
        self.credit = torch.empty(n, dtype=torch.float64, device=device)
        self.scores: Tensor | None = None
        if with_scores:
            self.scores = torch.empty(n, n_classes, dtype=torch.float16, device=device)

    def add(self, masked: Tensor, credit: Tensor) -> None:
        """Take the next samples.

        Args:
            masked: logits (B, n_classes), -inf where a class may not be predicted.
            credit: what each sample scores, (B,).
        """
        rows = slice(self.end, self.end + len(masked))
        best, top = masked.topk(self.top.shape[1])
        self.top[rows] = top.masked_fill_(best == -torch.inf, NO_CLASS)
        self.credit[rows] = credit
        if self.scores is not None:
            self.scores[rows] = masked.double().softmax(1)
        self.end = rows.stop

    def packed(self, y: Tensor, identities: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
        """Return what is stored, on the CPU.

        ``top`` (N, k) and ``y`` (N,) are uint16, of which the largest stands for no class (int32
        where there are more classes). A sample scores 1 if its first class is the right one, else
        0; those in ``tied`` (row numbers, int32) score 1/``ways`` instead, or 0 where that is 0.

        Args:
            y: the right classes, (N,), on the CPU.
            identities, sizes: of the experiences whose samples were given one after the other.
        """
        top, credit = self.top.cpu(), self.credit.cpu()
        tied = (credit != (top[:, 0] == y)).nonzero()[:, 0]
        ways = credit[tied].reciprocal().nan_to_num(posinf=0.0).round()
        kind = torch.uint16 if self.n_classes < MOST_UINT16 else torch.int32
        packed: dict[str, Any] = {
            "identities": [*identities],
            "sizes": [*sizes],
            "y": y.to(kind),
            "top": top.to(kind),
            "tied": tied.int(),
            "ways": ways.int(),
        }
        return packed if self.scores is None else {**packed, "scores": self.scores.cpu()}


def row_bytes(n: int, n_classes: int, with_scores: bool) -> int:
    """Return about how many bytes the predictions for n samples take."""
    return 2 * n * (1 + min(TOP, n_classes) + (n_classes if with_scores else 0))
