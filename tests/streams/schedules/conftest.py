"""Streams in which an input is its own number, so that it is known where each sample went."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cl_platform import Samples, Stream, class_incremental
from streams.sharing import hold_out

Numbered = Callable[..., Stream]


@pytest.fixture
def numbered() -> Numbered:
    """Makes a stream of numbered inputs, (n, 1) float32, of four classes or as many as given."""

    def make(sizes: tuple[int, ...] = (40, 40, 40, 40), per: int = 2, share: float = 0) -> Stream:
        y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        train = Samples.of(torch.arange(len(y))[:, None].float(), y)
        rows = torch.cat([torch.nonzero(y == c).flatten()[[0, 1, -1]] for c in range(len(sizes))])
        test = Samples.of(rows[:, None] + 0.5, y[rows])
        groups = [range(c, c + per) for c in range(0, len(sizes), per)]
        train, held = hold_out(train, share)
        return class_incremental(
            "numbered", groups, [*map(str, range(len(sizes)))], train, test, held
        )

    return make


def numbers(stream: Stream) -> list[list[int]]:
    """Return the numbers of the samples of each experience."""
    return [e.train.x.flatten().long().tolist() for e in stream.experiences]
