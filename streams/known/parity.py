"""Sequences of bits whose labels need a longer memory from one experience to the next."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from cl_platform import Experience, Samples, Stream
from streams.sharing import Fraction, hold_out

Bits = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]


def n_parity(
    question: Literal["parity", "matching"] = "parity",
    *,
    experiences: PositiveInt = 5,
    first: Bits = 2,
    ones: Share | None = None,
    samples: Annotated[int, Field(ge=2)] = 1000,
    test_samples: PositiveInt = 500,
    validation: Fraction = 0.0,
    data_seed: NonNegativeInt = 0,
    online: bool = False,
) -> Stream:
    """Draw sequences of bits, of which experience k asks about the last N = first + k.

    Task-incremental, with two classes of its own for each N. An input is as long as the longest
    sequence, which stands at its end: bits are -1 and 1, and 0 is before its beginning. Lengths are
    uniform from N_max + 2 to 4 N_max + 1, with the largest N of the stream, so that a length says
    nothing of the task. ``--model leaky-rnn`` reads them step by step.

    Source: Khajehabdollahi et al. 2024 (Emergent mechanisms for long timescales).

    Args:
        question: ``parity``: is the number of ones among the last N odd? ``matching``: is the last
            bit equal to the one N - 1 before it?
        first: the smallest N.
        ones: how probable a 1 is; None draws that of each sequence uniformly for parity, and is 0.5
            for matching. Drawn uniformly, the last N are even in (1 + 1 / (N + 1)) / 2 of the
            sequences if N is even: always answering "even" is right so often.
        samples, test_samples: sequences of each experience.
        validation: share of each class's training samples that is held out.
        data_seed: of the sequences.
        online: train on each sample once only.
    """
    generator = torch.Generator().manual_seed(data_seed)
    largest = first + experiences - 1
    answers = ("even", "odd") if question == "parity" else ("differ", "match")
    made, names = [], []
    for task in range(experiences):
        n = first + task
        bits, x = _sequences(samples + test_samples, largest, _drawn(question, ones), generator)
        odd = bits[:, -n:].sum(1) % 2
        y = 2 * task + (odd if question == "parity" else (bits[:, -n] == bits[:, -1]).long())
        train, test = (
            Samples.of(x[part], y[part]) for part in (slice(samples), slice(samples, None))
        )
        parts = (*hold_out(train, validation), test)
        made.append(Experience(f"N = {n}", (2 * task, 2 * task + 1), task, *parts))
        names += [f"N = {n}: {answer}" for answer in answers]
    return Stream(f"n-{question}", "task", tuple(made), tuple(names), online=online)


def _drawn(question: str, ones: float | None) -> float | None:
    return 0.5 if ones is None and question == "matching" else ones


def _sequences(
    n: int, largest: int, ones: float | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the bits (n, L) int64, and the inputs (n, L) float32 in which 0 stands before each."""
    longest = 4 * largest + 1
    lengths = torch.randint(largest + 2, longest + 1, (n, 1), generator=generator)
    share = torch.rand(n, 1, generator=generator) if ones is None else torch.full((n, 1), ones)
    bits = (torch.rand(n, longest, generator=generator) < share).long()
    inside = torch.arange(longest) >= longest - lengths
    return bits, torch.where(inside, 2.0 * bits - 1, torch.zeros(()))
