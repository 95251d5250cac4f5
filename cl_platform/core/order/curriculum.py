"""The contract of a curriculum: it orders what a stream teaches, and never sees test data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, dataclass_transform

import numpy as np

from cl_platform.config.registry import name_of
from cl_platform.core.rng import seed_for
from cl_platform.core.stream import Stream, check_permutation
from cl_platform.errors import ClpError, CurriculumError, one_line

Level = Literal["experiences", "classes"]


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Curriculum(ABC):
    """An order of experiences, or of classes; annotated class attributes are its parameters.

    Attributes:
        level: what is ordered. ``classes`` fills experiences of unchanged sizes in the new order.
    """

    level: Level = "experiences"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)

    @abstractmethod
    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        """Return a permutation of the experiences (or classes) of a stream without test data."""

    def scores(self, stream: Stream, orders: Sequence[Sequence[int]]) -> Sequence[float]:
        """Return how well each order should do by this curriculum; higher is better.

        Raises:
            CurriculumError: this curriculum scores no orders.
        """
        name = name_of("curriculum", type(self))
        raise CurriculumError(f"curriculum {name!r} gives orders no scores; designer does")

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        """Return the curricula, as sections of a configuration, that this stands for in a sweep.

        Empty, the default: itself.
        """
        return ()


def ask(stream: Stream, curriculum: Curriculum, seed: int) -> tuple[int, ...]:
    """Return the order that a curriculum gives a stream, of experiences or of classes.

    Raises:
        CurriculumError: what it returned is no permutation.
    """
    n = stream.n_classes if curriculum.level == "classes" else len(stream)
    rng = np.random.default_rng(seed_for(seed, 0, "curriculum"))
    name = name_of("curriculum", type(curriculum))
    try:
        returned = curriculum(stream.without_test_data(), rng)
        return check_permutation(returned, n, f"curriculum {name!r} returned")
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's curriculum raises
        raise CurriculumError(
            f"curriculum {name!r} failed ({type(error).__name__}: {one_line(error)}); "
            f"it must return a permutation of 0..{n - 1}"
        ) from error


def arrange(stream: Stream, level: Level, order: Sequence[int]) -> Stream:
    """Return the stream in an order of its experiences or classes."""
    return stream.regrouped(order) if level == "classes" else stream.reordered(order)
