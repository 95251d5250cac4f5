"""An order by the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cl_platform import Curriculum, Stream


class SmallestFirst(Curriculum):
    """The experience with the fewest training samples first.

    Args:
        reverse: the one with the most first.
    """

    reverse: bool = False

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        sizes = [len(e.train) for e in stream.experiences]
        return sorted(range(len(stream)), key=lambda i: sizes[i], reverse=self.reverse)
