"""Teachers that look at one number of each experience; random and fixed ones are the controls.

A new teacher is a class whose annotated attributes are its parameters and whose `choose` returns an
experience, and an entry point whose name begins with ``teacher:``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Annotated

import numpy as np
from pydantic import Field

from cl_platform import Past, Stream, Teacher
from cl_platform.errors import CurriculumError

Share = Annotated[float, Field(ge=0, le=1)]


class Random(Teacher):
    """Any experience, all equally likely."""

    watches = False

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        return int(rng.integers(len(past.sizes)))


class Fixed(Teacher):
    """A fixed order, whatever the learner does: each experience is learned to its end, then the
    next; after the last one the first again.

    Args:
        order: experiences, which may occur more than once; as given if empty. Each stands for one
            pass over its data.
    """

    watches = False

    order: Sequence[int] = ()

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        if unknown := sorted({*self.order} - {*range(len(stream))}):
            raise CurriculumError(
                f"curriculum 'teacher:fixed': order has {unknown}, and stream {stream.name!r} has "
                f"experiences 0..{len(stream) - 1}"
            )
        return super().__call__(stream, rng)

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        return self._place(past)[0]

    def samples(self, past: Past, experience: int) -> int:
        return min(super().samples(past, experience), self._place(past)[1])

    def _place(self, past: Past) -> tuple[int, int]:
        """Return the experience that is being learned, and how many samples of it are left."""
        learned = sum(visit.samples for visit in past.visits)
        for experience in cycle(self.order or range(len(past.sizes))):
            if learned < past.sizes[experience]:
                return experience, past.sizes[experience] - learned
            learned -= past.sizes[experience]
        raise AssertionError


class Greedy(Teacher):
    """The experience whose validation accuracy changed most, up or down, at its last visit.

    Those that were never visited come first; ties are drawn.

    Args:
        explore: share of the slices that are of any experience.
    """

    explore: Share = 0.1

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        if rng.random() < self.explore:
            return int(rng.integers(len(past.sizes)))
        return _largest(np.abs(past.progress(unvisited=np.inf)), rng)


class Uncertainty(Teacher):
    """The experience whose validation samples are predicted with the least confidence.

    Confidence is the mean probability of the likeliest class among those seen; ties are drawn.
    (Active instruction tuning, Kung et al. 2023, measures how much predictions change when inputs
    are perturbed, which takes ten passes and more.)
    """

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        return _largest(-past.confidence[-1], rng)


class Learnable(Teacher):
    """An experience with a probability in proportion to p (1 - p), p being its validation accuracy.

    What is known and what is out of reach gets little (online difficulty filtering, Bae et al.
    2025).

    Args:
        explore: share of the slices that are of any experience.
    """

    explore: Share = 0.2

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        p = past.accuracy[-1]
        return draw(p * (1 - p), self.explore, rng)


def draw(weights: np.ndarray, explore: float, rng: np.random.Generator) -> int:
    """Draw an index in proportion to weights, mixed with a share of the uniform distribution."""
    n, total = len(weights), weights.sum()
    shares = weights / total if total > 0 else np.full(n, 1 / n)
    return int(rng.choice(n, p=(1 - explore) * shares + explore / n))


def _largest(values: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(values == values.max())))
