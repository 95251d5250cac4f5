"""The chain: experiences of which each can be learned only after the one before it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt

from cl_platform import Experience, Samples, Stream

Levels = Annotated[int, Field(ge=2)]


def chain(experiences: PositiveInt = 10, levels: Levels = 100) -> Stream:
    """Return a domain-incremental stream that a simulated learner masters level by level.

    It is for teachers (after the toy environment of Portelas et al. 2019): a sample is (experience,
    level, label), so that a learner which knows the first n levels of an experience is right about
    those, and its accuracy is n / levels. Such a learner is in ``examples/competence.py``: it gains
    a level with each visit, if it has mastered three quarters of the experience before.

    Args:
        levels: samples of each experience, in training, validation and test data alike.
    """
    label = torch.arange(levels) % 2
    parts = []
    for k in range(experiences):
        x = torch.stack([torch.full((levels,), k), torch.arange(levels), label], dim=1).float()
        samples = [Samples.of(x, label) for _ in range(3)]
        parts.append(Experience(f"link {k + 1}", (0, 1), k, *samples))
    return Stream("chain", "domain", tuple(parts), ("even", "odd"))
