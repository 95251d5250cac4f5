"""The contract of a pacing: it says which samples each epoch of an experience consists of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, dataclass_transform

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from cl_platform.config.registry import name_of
from cl_platform.errors import ClpError, CurriculumError, one_line

Score = Literal["loss", "margin", "el2n", "confidence", "variability", "random", "uniform"]
UNTRAINED = ("random", "uniform")  # scores that need no reference model


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Pacing(ABC):
    """The samples of each epoch; annotated class attributes are its parameters.

    It acts on what the kernel's loop draws, so it holds for every strategy that is trained by it.
    Whatever the epochs are, a run shows as many samples as ``epochs`` whole passes would.

    Attributes:
        scores: how difficult a sample is, by a reference model: one that is trained plainly
            (``finetune``), from scratch and with the run's settings, on what the experience trains
            on. ``loss``, ``margin`` (of the probabilities) and ``el2n`` (Paul et al. 2021) are of
            the trained model; ``confidence`` (one minus the mean) and ``variability`` (the standard
            deviation) are of the probability of the right class over the epochs (Swayamdipta et
            al. 2020). ``random`` draws a difficulty for each sample, ``uniform`` makes all equal.
        shuffled: deal the scores anew among the samples: the control that keeps all sizes.
        reference_seed: of the reference model, so that runs of all seeds share one.
    """

    scores: Score = "loss"
    shuffled: bool = False
    reference_seed: NonNegativeInt = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)

    @abstractmethod
    def __call__(
        self, difficulty: np.ndarray, epochs: int, rng: np.random.Generator
    ) -> Iterable[np.ndarray]:
        """Yield the rows of one epoch after the other, each (k,) integers without repetition.

        The kernel shuffles them. It takes epochs until as many samples are shown as in whole
        passes, and cuts the last one; so this may go on for ever.

        Args:
            difficulty: of each sample of the experience, (n,) float64, not negative; more is
                harder.
            epochs: of the run: whole passes.
        """


def part_of(n: int, share: float) -> int:
    """Return how many of n samples a share is; at least two, since batch norm needs them."""
    return min(n, max(2, int(n * share)))


def ask(
    pacing: Pacing, scores: np.ndarray | None, n: int, epochs: int, rng: np.random.Generator
) -> list[Tensor]:
    """Return the rows of each epoch of an experience of n samples, each (k,) int64, ascending.

    A last epoch of a single sample is left out: batch norm cannot train on one.

    Args:
        scores: of a reference model, (n,); None for those that need none.

    Raises:
        CurriculumError: what the pacing gave is no sequence of rows.
    """
    # Drawn in any case, so that a pacing and its controls draw alike from here on.
    drawn, dealt = rng.random(n), rng.permutation(n)
    given = {"random": drawn, "uniform": np.ones(n)}.get(pacing.scores, scores)
    assert given is not None
    difficulty = np.asarray(given, np.float64)
    if pacing.shuffled:
        difficulty = difficulty[dealt]
    name = name_of("pacing", type(pacing))
    try:
        found = list(_cut(pacing(difficulty, epochs, rng), n, epochs * n, rng))
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's pacing raises
        raise CurriculumError(
            f"pacing {name!r} failed ({type(error).__name__}: {one_line(error)}); it must yield "
            f"arrays of different rows in 0..{n - 1}"
        ) from error
    if not found:
        raise CurriculumError(f"pacing {name!r} gave no epoch: it must yield at least one")
    return found


def _cut(
    epochs: Iterable[np.ndarray], n: int, budget: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Yield the rows of epochs until they are `budget` samples, some of the last one at random."""
    for given in epochs:
        rows = np.asarray(given)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise ValueError(f"an epoch is {rows.dtype} of shape {rows.shape}")
        if len(np.unique(rows)) < len(rows) or rows.min() < 0 or rows.max() >= n:
            raise ValueError("an epoch has a row twice, or one that is not there")
        if len(rows) > budget:
            rows = rng.choice(rows, budget, replace=False)
        yield torch.from_numpy(np.sort(rows).astype(np.int64))
        budget -= len(rows)
        if budget < min(2, n):
            return
