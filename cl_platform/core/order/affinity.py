"""The contract of an affinity: how much having learned one experience helps to learn another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, dataclass_transform

import numpy as np

from cl_platform.config.registry import name_of
from cl_platform.config.signatures import as_section, blame, build
from cl_platform.core.code_digest import code_digest
from cl_platform.core.digests import digest
from cl_platform.core.rng import seed_for
from cl_platform.core.stream import Stream
from cl_platform.errors import BadInput, ClpError, ContractError


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Affinity(ABC):
    """A directed matrix over experiences; annotated class attributes are its parameters."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)

    @abstractmethod
    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        """Return A, (T, T), of a stream without test data.

        A[i, j] is higher the more it helps to have learned experience i before j. The diagonal
        says nothing.
        """

    def reads(self, stream: Stream) -> Any:
        """Return what decides the matrix besides its parameters, its code and the stream.

        It is part of the key: the content of a file, a digest of code that a parameter names.
        """
        return None


def affinity_of(given: Any) -> Affinity:
    """Return the affinity of a name or a section.

    Raises:
        BadInput: there is none, its parameters are wrong, or it is something else.
    """
    made = build("affinity", as_section(given))
    if not isinstance(made, Affinity):
        raise BadInput(f"affinity {given!r:.60} gives {made!r:.60}: expected an Affinity")
    return made


def key_of(stream: Stream, affinity: Affinity, seed: int = 0) -> str:
    """Return the content address of the matrix that an affinity gives a stream."""
    return _request(stream, affinity, seed).key


def ask(stream: Stream, affinity: Affinity, seed: int = 0) -> np.ndarray:
    """Return the matrix A[source, target] of an affinity, (T, T) float64, with a zero diagonal.

    It sees no test data. The last ones are cached, and not writable.

    Raises:
        ContractError: it failed, or returned something else than T x T finite numbers.
    """
    return _asked(_request(stream, affinity, seed))


def is_symmetric(matrix: np.ndarray) -> bool:
    """Return whether A[i, j] is A[j, i] but for rounding: then no order is better than another."""
    return bool(np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12))


def reciprocity(matrix: np.ndarray) -> float:
    """Return Spearman's rho of A[i, j] with A[j, i] over all ordered pairs whose two are known.

    1 if A is symmetric; near 0, one direction says nothing of the other. It is nan where there
    are no two different values to compare.
    """
    from scipy.stats import spearmanr

    known = np.isfinite(matrix) & np.isfinite(matrix.T) & ~np.eye(len(matrix), dtype=bool)
    values = matrix[known]
    if np.unique(values).size < 2:  # of which no correlation is defined
        return float("nan")
    return float(spearmanr(values, matrix.T[known]).statistic)


@dataclass(frozen=True)
class _Request:
    """The key of a matrix, and what it is made of, which is not compared."""

    key: str
    stream: Stream = field(compare=False)
    affinity: Affinity = field(compare=False)
    seed: int = field(compare=False)


def _request(stream: Stream, affinity: Affinity, seed: int) -> _Request:
    given = stream.without_test_data()
    data = [(e.name, e.classes, e.train.identity, e.validation.identity) for e in given.experiences]
    own = [name_of("affinity", type(affinity)), vars(affinity), code_digest(type(affinity))]
    with _blaming(affinity):
        own.append(affinity.reads(given))
    return _Request(digest("affinity", own, seed, data), given, affinity, seed)


@lru_cache(maxsize=16)  # the curricula of a sweep share them
def _asked(request: _Request) -> np.ndarray:
    rng = np.random.default_rng(seed_for(request.seed, 0, "affinity"))
    with _blaming(request.affinity) as who:
        found = np.array(request.affinity(request.stream, rng), dtype=np.float64)
    names = [e.name for e in request.stream.experiences]
    n = len(names)
    if found.shape != (n, n):
        raise ContractError(f"{who} returned shape {found.shape}: expected ({n}, {n})")
    np.fill_diagonal(found, 0)
    for i, j in np.argwhere(~np.isfinite(found))[:1]:
        raise BadInput(
            f"{who} gives {found[i, j]} from {names[i]!r:.60} to {names[j]!r:.60}: expected "
            "finite numbers"
        )
    found.setflags(write=False)
    return found


@contextmanager
def _blaming(affinity: Affinity) -> Iterator[str]:
    """Turn whatever an affinity raises into one line that names it; give its name in a line."""
    who = f"affinity {name_of('affinity', type(affinity))!r}"
    try:
        yield who
    except (ClpError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's affinity raises
        raise ContractError(f"{who} failed: {blame(error)}") from error
