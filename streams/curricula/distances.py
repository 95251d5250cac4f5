"""Distances between the experiences (or classes) of a stream, and their difficulties, by features.

All from training data: curricula get streams without test data.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from cl_platform import Samples, Stream
from cl_platform.config import registry
from cl_platform.config.signatures import as_section, blame, build
from cl_platform.core.code_digest import code_digest
from cl_platform.core.digests import digest
from cl_platform.core.order.curriculum import Level
from cl_platform.errors import ClpError, ContractError, CurriculumError, DataError

Distance = Literal["cosine", "euclidean", "ot"]
Difficulty = Literal["nearest_mean", "probe"]

CHUNK = 500  # samples encoded at a time


@dataclass(frozen=True, eq=False)
class Items:
    """The items that a curriculum orders, as features.

    Args:
        names: of the items, for display.
        features: (n_i, D) float64 of each item.
        labels: (n_i,) class indices of each item.
    """

    names: tuple[str, ...]
    features: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Request:
    """The key of cached features: all that decides them, and the stream, which is not compared."""

    data: str
    level: Level
    encoder: str
    code: str
    samples: int
    stream: Stream = field(compare=False)


def items_of(stream: Stream, level: Level, encoder: str | Mapping[str, Any], samples: int) -> Items:
    """Encode the items of a stream; the results of the last calls are cached.

    Args:
        encoder: a registered name, ``module:function``, or a mapping with its parameters.
        samples: number of each item, at random from its training data, as many of each class, and
            the same ones every time.

    Raises:
        ClpError: the encoder is not available, fails, or returns something else than features.
    """
    data = digest([e.train.identity for e in stream.experiences])
    section = as_section(encoder)
    code = code_digest(registry.load("encoder", section["name"]))
    text = json.dumps(section, sort_keys=True, default=str)
    features, labels = _encoded(_Request(data, level, text, code, samples, stream))
    names = stream.class_names if level == "classes" else [e.name for e in stream.experiences]
    return Items(tuple(names), features, labels)


Arrays = tuple[np.ndarray, ...]


@lru_cache(maxsize=4)  # the curricula of a sweep share them
def _encoded(request: _Request) -> tuple[Arrays, Arrays]:
    encode = build("encoder", json.loads(request.encoder))
    generator = torch.Generator().manual_seed(0)
    features, labels = [], []
    for part in _parts(request.stream, request.level):
        rows = _some(part.y.cpu(), request.samples, generator)
        features.append(_features(encode, part, rows))
        labels.append(part.y[rows].cpu().numpy())
    widths = sorted({f.shape[1] for f in features})
    if len(widths) > 1:
        raise ContractError(f"the encoder returned {widths} features: expected the same number")
    return tuple(features), tuple(labels)


def _some(y: torch.Tensor, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Draw rows at random, in order, as many of each class while it has any left."""
    shuffled = torch.randperm(len(y), generator=generator)
    rank = torch.empty(len(y), dtype=torch.int64)  # of a row among those of its class
    for c in y.unique():
        members = shuffled[y[shuffled] == c]
        rank[members] = torch.arange(len(members))
    return rank.argsort(stable=True)[:wanted].sort().values


def _parts(stream: Stream, level: Level) -> list[Samples]:
    if level == "experiences":
        return [e.train for e in stream.experiences]
    everything = Samples.concat([e.train for e in stream.experiences])
    parts = [everything.select(everything.y == c) for c in range(stream.n_classes)]
    for name, part in zip(stream.class_names, parts, strict=True):
        if not len(part):
            raise CurriculumError(f"class {name!r} has no training data: order experiences")
    return parts


@torch.inference_mode()
def _features(encode: Any, part: Samples, rows: torch.Tensor) -> np.ndarray:
    found: list[np.ndarray] = []
    for chunk in rows.split(CHUNK):
        raw = part.gather(chunk).cpu()
        try:
            features = encode(raw)
        except (ClpError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever a user's encoder raises
            raise ContractError(f"the encoder failed on inputs: {blame(error)}") from error
        fault = _fault(features, len(chunk), found)
        if fault is not None:
            raise ContractError(f"the encoder returned {fault}")
        found.append(features.double().numpy())
    return np.concatenate(found)


def _fault(features: Any, n: int, before: Sequence[np.ndarray]) -> str | None:
    """Describe the fault of features of n inputs; None if there is none."""
    expected = f"expected numbers of shape ({n}, {before[0].shape[1] if before else 'D'})"
    if not isinstance(features, torch.Tensor):
        return f"{type(features).__name__}: {expected}"
    width = before[0].shape[1:] if before else features.shape[1:]
    if features.dim() != 2 or features.shape != (n, *width) or not features.shape[1]:
        return f"features of shape {tuple(features.shape)}: {expected}"
    if not features.isfinite().all():
        return f"nan or infinite features: {expected}"
    return None


def distances(items: Items, distance: Distance) -> np.ndarray:
    """Return the distances between items, (n, n) symmetric float64 with a zero diagonal.

    ``cosine`` (1 - cos) and ``euclidean`` compare the items' mean features. ``ot`` is the squared
    2-Wasserstein distance between their samples, exact, without the bias of finite samples: with
    each item in two halves a, a', it is (W(a, b) + W(a', b') - W(a, a') - W(b, b')) / 2, which is 0
    on average for items that do not differ.

    Source of ``ot``: Alvarez-Melis & Fusi 2020 (OTDD), which debiases by the self-distances of an
    entropic W; for items of one label each their distance of labels is a constant.

    Raises:
        DataError: ``ot`` without its package.
    """
    if distance == "ot":
        return _transport(items)
    means = np.stack([f.mean(0) for f in items.features])
    if distance == "euclidean":
        found = np.sqrt(((means[:, None] - means[None]) ** 2).sum(-1))
    else:
        unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        found = np.maximum(1 - unit @ unit.T, 0)
    np.fill_diagonal(found, 0)
    return np.asarray((found + found.T) / 2)


def _transport(items: Items) -> np.ndarray:
    try:
        with warnings.catch_warnings():  # its docstrings have invalid escape sequences
            warnings.simplefilter("ignore")
            import ot
    except ImportError as error:
        raise DataError("distance=ot needs POT: install the extra `curricula`") from error
    short = [name for name, f in zip(items.names, items.features, strict=True) if len(f) < 2]
    if short:
        raise CurriculumError(f"distance=ot: {short[0]!r} has a single sample: give cosine")

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(ot.emd2([], [], ot.dist(a, b)))

    halves = [_alike_halves(f) for f in items.features]
    own = [between(a, b) for a, b in halves]
    found = np.zeros((len(items), len(items)))
    for i in range(len(items)):
        for j in range(i):
            across = between(halves[i][0], halves[j][0]) + between(halves[i][1], halves[j][1])
            found[i, j] = found[j, i] = max(0.0, (across - own[i] - own[j]) / 2)
    return found


def _alike_halves(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every second sample along the direction of largest variance, and the others."""
    centred = features - features.mean(0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    rows = np.argsort(centred @ direction, kind="stable")
    return features[rows[0::2]], features[rows[1::2]]


def difficulties(items: Items, difficulty: Difficulty) -> np.ndarray:
    """Return the share of each item's training samples that a simple classifier gets wrong, (n,).

    It distinguishes all classes of the stream and is fitted on the other half of the samples of
    each class, for both halves. ``nearest_mean`` takes the class with the nearest mean feature,
    ``probe`` is linear, by ridge regression on standardised features.

    Raises:
        CurriculumError: there are not enough samples or classes.
    """
    x, y = np.concatenate(items.features), np.concatenate(items.labels)
    item = np.repeat(np.arange(len(items)), [len(f) for f in items.features])
    half = np.zeros(len(y), dtype=bool)  # every second sample of each class of an item
    for i, c in {*zip(item.tolist(), y.tolist(), strict=True)}:
        half[np.flatnonzero((item == i) & (y == c))[0::2]] = True
    wrong = np.zeros(len(y))
    for fit in (half, ~half):
        score = ~fit
        if set(y[score]) - set(y[fit]) or len(set(y)) < 2:
            raise CurriculumError(
                "difficulties need two classes and two samples of each; raise curriculum.samples"
            )
        predict = _nearest_mean if difficulty == "nearest_mean" else _probe
        wrong[score] = predict(x[fit], y[fit], x[score]) != y[score]
    return np.array([wrong[item == i].mean() for i in range(len(items))])


def _nearest_mean(x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    classes = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in classes])
    squares = (means**2).sum(1) - 2 * queries @ means.T  # without a term that all means share
    return np.asarray(classes[squares.argmin(1)])


def _probe(x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=x.shape[1]))
    return np.asarray(probe.fit(x, y).predict(queries))


def nearest_first(matrix: np.ndarray, start: int, sign: int) -> Sequence[int]:
    """Order items from `start` on, always to the nearest one left (farthest with `sign` -1)."""
    order, left = [start], set(range(len(matrix))) - {start}
    while left:
        order.append(min(sorted(left), key=lambda i: sign * matrix[order[-1], i]))
        left.remove(order[-1])
    return order
