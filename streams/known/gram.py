"""Tasks whose similarities are given: a stream of which any measure of similarity can be judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from cl_platform import Experience, Samples, Stream
from cl_platform.errors import BadInput
from streams.sharing import Fraction, hold_out

Form = Literal["equal", "blocks", "path"]
Cosine = Annotated[float, Field(gt=-1, lt=1)]
Matrix = Sequence[Sequence[float]]


def gram(
    similarity: Form | Matrix = "equal",
    p: Cosine = 0.4,
    *,
    scenario: Literal["domain", "task"] = "domain",
    experiences: PositiveInt = 7,
    blocks: PositiveInt = 2,
    degrees: Sequence[PositiveInt] = (1, 2, 3, 4),
    dimensions: PositiveInt = 32,
    shift: NonNegativeFloat = 3.0,
    noise: NonNegativeFloat = 0.01,
    samples: Annotated[int, Field(ge=2)] = 500,
    test_samples: PositiveInt = 500,
    validation: Fraction = 0.0,
    data_seed: NonNegativeInt = 0,
    online: bool = False,
) -> Stream:
    """Draw binary tasks along directions w_i of which every cosine is chosen.

    With z normal, the input is x = z + shift w_i, and the label says whether
    s + s^2 + ... + s^degree, with s = w_i z, and some noise, is above its median in the training
    data. So the mean inputs of two tasks have the same cosine as their directions: what curricula,
    distances and affinities find can be held against `similarity`.

    Source: the synthetic data of MultiTab-Bench, which are those of ``shift=0``: there inputs have
    one distribution, and only labels tell the tasks apart.

    Args:
        similarity: ``equal``: each pair of tasks has the cosine `p`; ``blocks``: those of a block
            have, others 0; ``path``: neighbours have, and tasks n apart p^n; or a matrix of the
            cosines of all pairs, positive definite, with 1 on its diagonal.
        p: cosine of two tasks that are related, as `similarity` says.
        scenario: in ``domain`` the tasks share two classes, in ``task`` each has two of its own.
        experiences: number of tasks, unless a matrix says it.
        blocks: in how many parts the tasks are, in their order, and of about equal size.
        degrees: of the polynomials, in turn.
        dimensions: of the inputs, as many as there are tasks or more.
        shift: distance of each task's mean input from 0.
        noise: standard deviation of what is added to the polynomial.
        samples, test_samples: of each task.
        validation: share of each class's training samples that is held out.
        data_seed: of directions and samples.
        online: train on each sample once only.

    Raises:
        BadInput: there are no such directions.
    """
    if isinstance(similarity, str):
        cosines, kind = form(similarity, p, experiences, blocks), f"{similarity}, p {p:g}"
    else:
        cosines, kind = np.asarray(similarity, float), "given"
    generator = np.random.default_rng(data_seed)
    w = directions(cosines, dimensions, generator)
    n = len(w)
    parts: list[tuple[Samples, Samples]] = []
    for task in range(n):
        z = generator.normal(size=(samples + test_samples, dimensions))
        s = z @ w[task]
        degree = degrees[task % len(degrees)]
        value = sum(s**k for k in range(1, degree + 1)) + noise * generator.normal(size=len(s))
        first = 2 * task if scenario == "task" else 0
        y = torch.from_numpy(first + (value > np.median(value[:samples])).astype(np.int64))
        x = torch.from_numpy((z + shift * w[task]).astype(np.float32))
        parts.append((Samples.of(x[:samples], y[:samples]), Samples.of(x[samples:], y[samples:])))
    made = []
    for task, (train, test) in enumerate(parts):
        classes = (2 * task, 2 * task + 1) if scenario == "task" else (0, 1)
        made.append(
            Experience(f"task {task + 1}", classes, task, *hold_out(train, validation), test)
        )
    names: tuple[str, ...] = ("low", "high")
    if scenario == "task":
        names = tuple(f"task {task + 1}: {name}" for task in range(n) for name in names)
    return Stream(f"gram ({kind})", scenario, tuple(made), names, online=online)


def form(similarity: Form, p: float, n: int, blocks: int) -> np.ndarray:
    """Return the (n, n) cosines of a named form."""
    place = np.arange(n)
    if similarity == "path":
        return np.asarray(p ** np.abs(place[:, None] - place))
    block = place * min(blocks, n) // n if similarity == "blocks" else np.zeros(n)
    return np.where(place[:, None] == place, 1.0, np.where(block[:, None] == block, p, 0.0))


def directions(cosines: np.ndarray, dimensions: int, generator: np.random.Generator) -> np.ndarray:
    """Return unit vectors (n, dimensions) with the given (n, n) cosines, up to rounding.

    They are V sqrt(L) U, with the eigenvectors V and eigenvalues L of the matrix and random
    orthonormal rows U.

    Raises:
        BadInput: the matrix is none of cosines, or there are fewer dimensions than vectors.
    """
    n = len(cosines)
    if (
        cosines.shape != (n, n)
        or not (cosines == cosines.T).all()
        or (cosines.diagonal() != 1).any()
    ):
        raise BadInput(
            f"stream.similarity of shape {cosines.shape}: give a symmetric matrix with a row for "
            "each task and 1 on its diagonal"
        )
    values, vectors = np.linalg.eigh(cosines)
    if not values[0] > 1e-9:
        raise BadInput(
            f"these cosines belong to no {n} directions: the smallest eigenvalue of the matrix is "
            f"{values[0]:.3g} and must be positive; give a stream.p nearer to 0, or another "
            "stream.similarity"
        )
    if n > dimensions:
        raise BadInput(f"stream.dimensions={dimensions}: {n} tasks need as many dimensions or more")
    rows = np.linalg.qr(generator.normal(size=(dimensions, n)))[0].T
    return np.asarray(vectors * np.sqrt(values) @ rows)
