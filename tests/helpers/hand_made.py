"""Streams and features made by hand, and the orders that curricula give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cl_platform import Samples, Stream, class_incremental
from cl_platform.config.signatures import build
from cl_platform.core.order.curriculum import ask
from streams.curricula.distances import Items

FEATURED = ["designer", "easy_first", "hard_first", "similar_chain", "distant_chain"]

BLOBS = build("stream", {"name": "blobs"})


def curriculum(name: str, **parameters: object) -> Any:
    return build("curriculum", {"name": name, **parameters})


def order_of(stream: Stream, name: str, seed: int = 0, **parameters: object) -> list[int]:
    return list(ask(stream, curriculum(name, **parameters), seed))


def stream_of(
    means: Sequence[Sequence[float]],
    groups: Sequence[Sequence[int]],
    n: int = 200,
    spread: float | Sequence[float] = 1.0,
    rows: torch.Tensor | None = None,
    seed: int = 0,
    **fields: object,
) -> Stream:
    """Normal classes around given means, stored class by class unless `rows` says otherwise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(len(means)).repeat_interleave(n)
    noise = torch.randn(len(y), len(means[0]), generator=generator)
    noise -= noise.reshape(len(means), n, -1).mean(1)[y]  # the means are exact
    x = torch.tensor(means, dtype=torch.float32)[y] + torch.tensor(spread) * noise
    rows = torch.arange(len(y)) if rows is None else rows
    samples = Samples.of(x[rows], y[rows])
    names = [f"class {c}" for c in range(len(means))]
    return class_incremental("hand-made", groups, names, samples, samples, **fields)


def items(*features: np.ndarray) -> Items:
    names = tuple(f"item {i}" for i in range(len(features)))
    labels = tuple(np.full(len(f), i) for i, f in enumerate(features))
    return Items(names, tuple(np.asarray(f, dtype=np.float64) for f in features), labels)


def assert_one_line(error: BaseException) -> None:
    assert len(str(error).splitlines()) == 1


# Pairs of classes on lines far from each other: apart, the same, and half of both.
PAIRS = [[0, 0], [12, 0], [0, 100], [0.3, 100], [0, 200], [2, 200]]
DIFFICULT = stream_of(PAIRS, [[0, 1], [2, 3], [4, 5]])
