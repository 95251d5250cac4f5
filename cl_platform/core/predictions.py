"""What a run predicted for every test sample, row by row of its matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cl_platform.errors import BadInput

if TYPE_CHECKING:  # who only reads results has no use for it, and it takes seconds
    import torch
    from torch import Tensor

Keeping = Literal["none", "top", "scores"]
"""What is kept of predictions: nothing, the likeliest classes, or all probabilities as well."""
TOP = 5  # classes that are kept of each sample, the likeliest first
NO_CLASS = -1  # in the place of a class where fewer may be predicted
MOST_UINT16 = int(np.iinfo(np.uint16).max)  # classes; the last number stands for no class


class NotKept(BadInput):
    """Predictions of a row that were not kept."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions for all test samples in one row, under the scenario's own mask.

    The samples stand by column of the matrix, and within a column as the data set stores them.

    Args:
        y: the right classes, (N,) int64.
        top: the likeliest classes, best first, (N, at most 5) int64; NO_CLASS where no more may be
            predicted. Between equal logits the order is that of torch's ``topk``.
        credit: what each sample scores, (N,) float64: 1, 0, or 1/k if its class shares the largest
            logit with k-1 others.
        sizes: samples of each column, (T,).
        n_classes: of the stream.
        scores: probabilities of all classes, (N, n_classes) float16, nan where no class may be
            predicted; None unless they were kept.
    """

    y: np.ndarray
    top: np.ndarray
    credit: np.ndarray
    sizes: np.ndarray
    n_classes: int
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def likeliest(self) -> np.ndarray:
        """The predicted class of each sample, (N,) int64, or NO_CLASS."""
        likeliest: np.ndarray = self.top[:, 0]
        return likeliest

    @property
    def right(self) -> np.ndarray:
        """Whether the right class alone has the largest logit, (N,) bool."""
        right: np.ndarray = self.credit == 1
        return right

    def columns(self, *places: int) -> Predicted:
        """Return the predictions of some columns of the matrix, in this order."""
        starts = np.cumsum(self.sizes) - self.sizes
        part = np.concatenate([starts[j] + np.arange(self.sizes[j]) for j in places])
        scores = None if self.scores is None else self.scores[part]
        parts = {"y": self.y[part], "top": self.top[part], "credit": self.credit[part]}
        return replace(self, **parts, sizes=self.sizes[[*places]], scores=scores)

    def accuracies(self) -> np.ndarray:
        """Return the row of the matrix, (T,) float64.

        Bit by bit, where the evaluation added in the same order, as it does on a CPU.
        """
        columns = np.split(self.credit, np.cumsum(self.sizes)[:-1])
        return np.array([np.add.accumulate(c)[-1] / len(c) for c in columns])


class Predictions:
    """The predictions of a run; ``predictions[i]`` are those of row i, read when asked for.

    Args:
        kept: of each row of the matrix, whether its predictions are kept.
        load: returns a row that is kept.
        experience_ids, names: of the columns, as in the matrix.
        held_out: the columns that are never learned.
    """

    def __init__(
        self,
        kept: Sequence[bool],
        load: Callable[[int], Predicted],
        experience_ids: Sequence[str] = (),
        names: Sequence[str] = (),
        held_out: Sequence[int] = (),
    ) -> None:
        self.kept, self.held_out = tuple(kept), tuple(held_out)
        self.rows = tuple(i for i, is_kept in enumerate(kept) if is_kept)
        self.experience_ids, self.names = tuple(experience_ids), tuple(names)
        self._load = lru_cache(2)(load)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, row: int) -> Predicted:
        """Return the predictions of a row; -1 is the last.

        Raises:
            NotKept: the matrix has no such row, or its predictions were not kept.
            StorageError: they are not there any more.
        """
        i = row + len(self) if row < 0 else row
        if i not in self.rows:
            kept = ", ".join(map(str, self.rows[:10])) + (", ..." if len(self.rows) > 10 else "")
            raise NotKept(
                f"predictions[{row}]: there are {len(self)} rows, and predictions are kept of "
                f"{kept or 'none'}; give one of these, or run with predictions=top and a larger "
                "prediction budget"
            )
        return self._load(i)

    def trained(self) -> Predictions:
        """Return the predictions without the columns that are held out."""
        if not self.held_out:
            return self
        left = [j for j in range(len(self.experience_ids)) if j not in self.held_out]
        ids, names = ([of[j] for j in left] for of in (self.experience_ids, self.names))
        return Predictions(self.kept, lambda i: self[i].columns(*left), ids, names)


def unpacked(
    packed: Mapping[str, Any], identities: Sequence[str], labels: Sequence[int]
) -> Predicted:
    """Return the predictions of a row from the form in which they are stored.

    Args:
        packed: see :class:`Gathering`.
        identities: of the columns, in the order that is wanted.
        labels: the class index in the run of each class of the stream as given, by which the
            classes are named in what is returned.
    """
    sizes = dict(zip(packed["identities"], packed["sizes"], strict=True))
    starts = dict(zip(packed["identities"], np.cumsum([0, *packed["sizes"]]), strict=False))
    order = np.concatenate([np.arange(starts[e], starts[e] + sizes[e]) for e in identities])
    given = np.full(len(labels) + 1, NO_CLASS)  # by the index in the run; the last is for no class
    given[list(labels)] = np.arange(len(labels))
    y, top = (_classes(packed[name]) for name in ("y", "top"))
    credit = (top[:, 0] == y).astype(np.float64)
    ways = packed["ways"].numpy()
    credit[packed["tied"].numpy()] = np.divide(1.0, ways, out=np.zeros(len(ways)), where=ways > 0)
    scores = packed["scores"].numpy() if "scores" in packed else None
    return Predicted(
        given[y][order],
        given[top][order],
        credit[order],
        np.array([sizes[e] for e in identities]),
        len(labels),
        None if scores is None else scores[order][:, list(labels)],
    )


def _classes(stored: Tensor) -> np.ndarray:
    """Return stored class indices as int64, NO_CLASS where there is none."""
    values = stored.numpy()
    found: np.ndarray = values.astype(np.int64)
    if values.dtype == np.uint16:
        found[values == np.iinfo(np.uint16).max] = NO_CLASS
    return found


class Gathering:
    """Takes the predictions of one evaluation, chunk after chunk, without waiting for the device.

    Args:
        n: samples in all.
        with_scores: whether all probabilities are gathered as well.
    """

    def __init__(self, n: int, n_classes: int, with_scores: bool, device: torch.device) -> None:
        import torch

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
        self.top[rows] = top.masked_fill_(best == -np.inf, NO_CLASS)
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
        import torch

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
