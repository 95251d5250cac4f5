"""Teachers from the literature: each experience is the arm of a bandit whose reward moves."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from cl_platform import Past, Teacher
from streams.teachers.signals import Share, draw

Reward = Literal["advantage", "progress", "absolute-progress"]


class SEC(Teacher):
    """Values of arms that follow their rewards, and a softmax over them (Chen et al. 2025).

    Q <- (1 - rate) Q + rate r for the arm of a slice, of which the next is drawn with softmax(Q /
    temperature).

    Args:
        rate: alpha of the paper.
        temperature: tau of the paper, which has 0.2 to 1.
        reward: what an arm gives for a slice: the mean ``advantage`` |1 - p(y)| of validation
            samples after it; the ``progress`` of validation accuracy since the visit before; or the
            absolute value of that.
        decay: whether arms without a slice lose value at each slice, as they do in the published
            code, which counts an absent arm as a reward of 0; the paper keeps them.
    """

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: PositiveFloat = 0.4
    reward: Reward = "advantage"
    decay: bool = False

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        values = arm_values(rewards(past, self.reward), self.rate, self.decay)
        return int(rng.choice(len(values), p=softmax(values / self.temperature)))


class DUMP(Teacher):
    """Upper confidence bounds of the advantage, and a softmax over them (Wang et al. 2025).

    Args:
        window: visits to an arm, the last ones, that its mean advantage is of.
        temperature: of the softmax.
    """

    window: PositiveInt = 300
    temperature: PositiveFloat = 0.1

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        table = rewards(past, "advantage")
        means = [column[~np.isnan(column)][-self.window :] for column in table.T]
        means = [column.mean() if len(column) else 0.0 for column in means]
        bounds = upper_bounds(np.array(means), past.counts())
        return int(rng.choice(len(bounds), p=softmax(bounds / self.temperature)))


class ALP(Teacher):
    """An arm in proportion to its absolute learning progress (Portelas et al. 2019, for tasks
    without a continuous space).

    Args:
        explore: share of the slices that are of any experience.
    """

    explore: Share = 0.2

    def choose(self, past: Past, rng: np.random.Generator) -> int:
        return draw(np.abs(past.progress()), self.explore, rng)


def rewards(past: Past, kind: Reward) -> np.ndarray:
    """Return what each slice gave, (slices, T); nan for the experiences that it was not of."""
    visits = np.array([visit.experience for visit in past.visits], dtype=int)
    table = np.full((len(visits), len(past.sizes)), np.nan)
    if kind == "advantage":
        given = 1 - past.probability[np.arange(1, len(visits) + 1), visits]
    else:
        given = past.changes(past.accuracy)
        given = np.abs(given) if kind == "absolute-progress" else given
    table[np.arange(len(visits)), visits] = given
    return table


def arm_values(rewards: np.ndarray, rate: float, decay: bool) -> np.ndarray:
    """Return Q after some slices, (T,), which starts from 0.

    Args:
        rewards: (slices, T), nan where an arm took no part.
        decay: whether those that took no part count as 0; else they keep their value.
    """
    present = np.ones_like(rewards, dtype=bool) if decay else ~np.isnan(rewards)
    later = present[::-1].cumsum(0)[::-1] - present
    values: np.ndarray = (rate * np.nan_to_num(rewards) * (1 - rate) ** later).sum(0)
    return values


def upper_bounds(means: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Return mean + sqrt(2 ln(N + 1) / (n + 1)) of each arm, (T,), N being the sum of its n."""
    bounds: np.ndarray = means + np.sqrt(2 * np.log(visits.sum() + 1) / (visits + 1))
    return bounds


def softmax(values: np.ndarray) -> np.ndarray:
    """Return exp(values) / sum, (T,)."""
    powers = np.exp(values - values.max())
    shares: np.ndarray = powers / powers.sum()
    return shares
