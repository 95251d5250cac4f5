"""The contract of a teacher: a curriculum that watches the learner, and decides slice by slice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, PositiveFloat

from cl_platform.config.registry import name_of
from cl_platform.core.order.curriculum import Curriculum
from cl_platform.core.rng import seed_for
from cl_platform.core.stream import Stream
from cl_platform.errors import ClpError, CurriculumError, one_line


class Visit(NamedTuple):
    """A slice: so many samples of an experience, numbered as the stream is given."""

    experience: int
    samples: int


@dataclass(frozen=True, eq=False)
class Past:
    """What a teacher is shown: what was learned so far, and how it was scored on validation data.

    Rows are for the untrained model and for the state after each slice, columns for the
    experiences as the stream is given; all of shape (slices + 1, T), nan without validation data.

    Args:
        visits: the slices so far.
        accuracy: under the scenario's own mask.
        probability: mean probability of the right class under that mask.
        confidence: mean probability of the likeliest class.
        sizes: training samples of each experience.
        budget: samples of all slices together.
    """

    visits: tuple[Visit, ...]
    accuracy: np.ndarray
    probability: np.ndarray
    confidence: np.ndarray
    sizes: tuple[int, ...]
    budget: int

    @property
    def left(self) -> int:
        """Return how many samples may still be learned."""
        return self.budget - sum(visit.samples for visit in self.visits)

    def counts(self) -> np.ndarray:
        """Return how often each experience was visited, (T,) int64."""
        return np.bincount([v.experience for v in self.visits], minlength=len(self.sizes))

    def changes(self, values: np.ndarray) -> np.ndarray:
        """Return the change of each experience's value by its own visits, one a slice.

        Args:
            values: (slices + 1, T), such as `accuracy`.

        Returns:
            (slices,): the value after the slice less the value after the visit before, which for a
            first visit is the one just before the slice.
        """
        found = np.zeros(len(self.visits))
        for experience, slices in self._slices():
            first = values[slices[0], experience]
            found[slices] = np.diff(values[slices + 1, experience], prepend=first)
        return found

    def progress(self, unvisited: float = 0.0) -> np.ndarray:
        """Return the change of validation accuracy at the last visit to each experience, (T,).

        Args:
            unvisited: what stands for an experience that was never visited.
        """
        found = np.full(len(self.sizes), unvisited)
        for experience, slices in self._slices():
            before = slices[-2] + 1 if len(slices) > 1 else slices[0]
            own = self.accuracy[:, experience]
            found[experience] = own[slices[-1] + 1] - own[before]
        return found

    def _slices(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each experience that was visited, with the indices of its slices."""
        learned = np.array([visit.experience for visit in self.visits], dtype=int)
        for experience in np.unique(learned).tolist():
            yield experience, np.flatnonzero(learned == experience)


class Teacher(Curriculum):
    """A curriculum whose order is decided while a run goes on; experiences may come again.

    After each slice it is shown the past and names the next experience. It depends on the past and
    on the generator alone: a run that was killed is then decided as it was.

    Attributes:
        share: of an experience's training samples that one slice has.
        passes: samples of all slices together, in passes over the training data of the stream.
    """

    watches: ClassVar[bool] = True
    """Whether it looks at scores, so that the stream must have validation data."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    passes: PositiveFloat = 1.0

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        """Return the order of the columns: experiences as given."""
        if self.level != "experiences":
            name = name_of("curriculum", type(self))
            raise CurriculumError(
                f"curriculum {name!r} chooses among experiences: leave curriculum.level out"
            )
        return range(len(stream))

    @abstractmethod
    def choose(self, past: Past, rng: np.random.Generator) -> int:
        """Return the experience that the next slice is of, numbered as the stream is given.

        Args:
            rng: a generator of its own for each slice, drawn from the run's seed.
        """

    def samples(self, past: Past, experience: int) -> int:
        """Return how many samples of the experience the next slice has."""
        return max(1, round(self.share * past.sizes[experience]))


def next_visit(teacher: Teacher, past: Past, seed: int) -> Visit | None:
    """Return what a teacher decides; None once the samples of its budget have been learned.

    Raises:
        CurriculumError: it raised, or named no experience of the stream.
    """
    if past.left < 1:
        return None
    rng = np.random.default_rng(seed_for(seed, len(past.visits) + 1, "teacher"))
    n = len(past.sizes)
    try:
        chosen = teacher.choose(past, rng)
        samples = teacher.samples(past, int(chosen)) if chosen in range(n) else 0
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's teacher raises
        raise CurriculumError(
            f"{_named(teacher)} failed after {len(past.visits)} slices "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    if samples < 1 or int(samples) != samples:
        raise CurriculumError(
            f"{_named(teacher)} chose {samples!r:.20} samples of experience {chosen!r:.20}: give "
            f"a whole number from 0 to {n - 1}, and 1 sample or more"
        )
    return Visit(int(chosen), min(int(samples), past.left))


def _named(teacher: Teacher) -> str:
    return f"teacher {name_of('curriculum', type(teacher))!r}"
