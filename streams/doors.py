"""Doors for data of one's own: whatever finds a source is a stream by one decorator.

A door is a function that returns a :class:`streams.data.own.Source`; see ``streams/folder.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from cl_platform import Stream
from cl_platform.config.signatures import call, checked
from cl_platform.errors import say_once
from streams.data.datasets import Dataset, statistics
from streams.data.natural import natural
from streams.data.own import Source, dataset_of
from streams.sharing import Fraction, chained, noted


def opened(
    source: Source,
    *,
    test_share: Fraction = 0.2,
    test_seed: NonNegativeInt = 0,
    by: str | None = None,
) -> Dataset:
    """Read a source; where it has no test data, split some off.

    Args:
        test_share: share of each class's rows that becomes the test part where the source has
            none, drawn at random and evenly over the values of `by`.
        test_seed: seed of that draw.
    """
    data = dataset_of(source)
    if len(data.test) or not test_share:
        return data
    columns = data.columns.get(data.train.fingerprint, {})
    values = columns.get(by or "source")
    chosen = stratified(data.train.y, values, test_share, test_seed)
    note = f"{int(chosen.sum())} of {len(chosen)} rows split off for testing"
    say_once(
        f"{source.name} has no test part: {note} (stream.test_share={test_share:g} of each class, "
        f"stream.test_seed={test_seed})"
    )
    train, test = data.train.select(~chosen), data.train.select(chosen)
    of_train = statistics(train.source.numpy(), train.index.numpy())  # test data choose nothing
    mean, std = (tuple(of_train[name]) or None for name in ("mean", "std"))
    return noted(replace(data, train=train, test=test, mean=mean, std=std), note)


def stratified(y: Tensor, values: np.ndarray | None, share: float, seed: int) -> Tensor:
    """Draw a share of the rows of each class at random, evenly over some values, (n,) bool.

    A class of a single row stays whole; of others at least one row is drawn, and not all.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(y), dtype=torch.bool)
    place = torch.zeros(len(y), dtype=torch.long)
    if values is not None:
        found, inverse = np.unique(values, return_inverse=True)
        keys = sorted(range(len(found)), key=lambda i: natural(str(found[i])))
        place = torch.from_numpy(np.argsort(keys))[torch.from_numpy(inverse)]
    classes = y.unique()
    for i, c in enumerate(classes):
        rows = torch.nonzero(y == c).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        rows = rows[place[rows].argsort(stable=True)]  # at random among rows of equal values
        n = min(max(1, round(share * len(rows))), len(rows) - 1)
        if n:  # every so many rows; each class begins elsewhere, so that few rows have their turn
            begin = (i + 0.5) / len(classes)
            chosen[rows[((torch.arange(n) + begin) * len(rows) / n).long()]] = True
    return chosen


def door(read: Callable[..., Source]) -> Callable[..., Stream]:
    """Make a stream function of one that finds a source.

    Its parameters are those of `read`, of :func:`opened` and of :func:`streams.sharing.share_out`.
    """
    return chained(chained(read, opened))


_SHARED = chained(opened)  # the parameters of sources that Python gives


def stream_of(source: Source, given: dict[str, Any]) -> Stream:
    """Return the stream of a source by parameters that a person gave in Python.

    Raises:
        ConfigError: one of them is wrong; one line each.
    """
    parameters = checked("stream", _PARAMETERS, given)
    stream: Stream = call("stream", partial(_SHARED, source), parameters)
    return stream


_PARAMETERS = partial(_SHARED, Source("", tuple))
