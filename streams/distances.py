"""How far apart and how difficult the experiences (or classes) of a stream are, by their features.

All of it from training data: curricula are given streams without test data.
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
from cl_platform.curriculum import Level
from cl_platform.errors import ContractError, CurriculumError, DataError
from cl_platform.identity import digest
from cl_platform.parameters import as_section, build

Distance = Literal["cosine", "euclidean", "ot"]
Difficulty = Literal["nearest_mean", "probe"]

CHUNK = 500  # samples encoded at a time


@dataclass(frozen=True, eq=False)
class Items:
    """What a curriculum orders, as features.

    Args:
        names: what people read for each item.
        features: (n_i, D) float64 of each item.
        labels: (n_i,) class indices of each item.
    """

    names: tuple[str, ...]
    features: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Question:
    """Compared by what decides the answer; the stream itself is only carried along."""

    data: str
    level: Level
    encoder: str
    samples: int
    stream: Stream = field(compare=False)


def items_of(stream: Stream, level: Level, encoder: str | Mapping[str, Any], samples: int) -> Items:
    """The items of a stream as an encoder sees them.

    Args:
        encoder: a registered name, ``module:function``, or a mapping with its parameters.
        samples: of each item, evenly spaced over its training data.

    Raises:
        ClpError: the encoder cannot be had or returns something else than features.
    """
    data = digest([e.train.identity for e in stream.experiences])
    section = json.dumps(as_section(encoder), sort_keys=True)
    return _encoded(_Question(data, level, section, samples, stream))


@lru_cache(maxsize=4)  # the curricula of a sweep ask again and again
def _encoded(question: _Question) -> Items:
    stream, limit = question.stream, question.samples
    encode = build("encoder", json.loads(question.encoder))
    parts = _parts(stream, question.level)
    features, labels = [], []
    for part in parts:
        rows = torch.linspace(0, len(part) - 1, min(limit, len(part))).round().long()
        features.append(_features(encode, part, rows))
        labels.append(part.y[rows].cpu().numpy())
    names = (
        stream.class_names
        if question.level == "classes"
        else tuple(e.name for e in stream.experiences)
    )
    return Items(names, tuple(features), tuple(labels))


def _parts(stream: Stream, level: Level) -> list[Samples]:
    if level == "experiences":
        return [e.train for e in stream.experiences]
    everything = Samples.concat([e.train for e in stream.experiences])
    parts = [everything.select(everything.y == c) for c in range(stream.n_classes)]
    for name, part in zip(stream.class_names, parts, strict=True):
        if not len(part):
            raise CurriculumError(f"class {name!r} has no training data; order experiences")
    return parts


@torch.inference_mode()
def _features(encode: Any, part: Samples, rows: torch.Tensor) -> np.ndarray:
    found = []
    for chunk in rows.split(CHUNK):
        features = encode(part.gather(chunk.to(part.index.device)).cpu())
        if not isinstance(features, torch.Tensor) or features.shape[:1] != chunk.shape:
            shape = tuple(getattr(features, "shape", ()))
            raise ContractError(
                f"the encoder returned {type(features).__name__} {shape}: expected features of "
                f"shape ({len(chunk)}, D)"
            )
        found.append(features.flatten(1).double().numpy())
    return np.concatenate(found)


def distances(items: Items, distance: Distance) -> np.ndarray:
    """(n, n) symmetric float64 with a zero diagonal.

    ``cosine`` (1 - cos) and ``euclidean`` compare the items' mean features. ``ot`` is the squared
    2-Wasserstein distance between their samples, exact, with the bias of finite samples taken off:
    with each item in two halves a, a', it is (W(a, b) + W(a', b') - W(a, a') - W(b, b')) / 2, which
    is 0 on average for items that do not differ.

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
        raise DataError("distance=ot needs the package POT; install the extra `ot`") from error
    short = [name for name, f in zip(items.names, items.features, strict=True) if len(f) < 2]
    if short:
        raise CurriculumError(f"distance=ot: {short[0]!r} has a single sample; give cosine")

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(ot.emd2([], [], ot.dist(a, b)))

    halves = [(f[0::2], f[1::2]) for f in items.features]
    own = [between(a, b) for a, b in halves]
    found = np.zeros((len(items), len(items)))
    for i in range(len(items)):
        for j in range(i):
            across = between(halves[i][0], halves[j][0]) + between(halves[i][1], halves[j][1])
            found[i, j] = found[j, i] = max(0.0, (across - own[i] - own[j]) / 2)
    return found


def difficulties(items: Items, difficulty: Difficulty) -> np.ndarray:
    """(n,) share of each item's training samples that a simple classifier gets wrong.

    It tells all classes of the stream apart and is fitted on the other half of the samples (every
    second one), for both halves. ``nearest_mean`` takes the class with the nearest mean feature,
    ``probe`` is a linear one by ridge regression on standardised features.

    Raises:
        CurriculumError: there are not enough samples or classes.
    """
    x, y = np.concatenate(items.features), np.concatenate(items.labels)
    item = np.repeat(np.arange(len(items)), [len(f) for f in items.features])
    half = np.concatenate([np.arange(len(f)) % 2 for f in items.features])
    wrong = np.zeros(len(y))
    for fold in (0, 1):
        fit, score = half != fold, half == fold
        if set(y[score]) - set(y[fit]) or len(set(y)) < 2:
            raise CurriculumError(
                "difficulties need two classes and two samples of each; raise curriculum.samples"
            )
        predict = _nearest_mean if difficulty == "nearest_mean" else _probe
        wrong[score] = predict(x[fit], y[fit], x[score]) != y[score]
    return np.array([wrong[item == i].mean() for i in range(len(items))])


def _nearest_mean(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    classes = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in classes])
    squares = (means**2).sum(1) - 2 * asked @ means.T  # less what is the same for all means
    return np.asarray(classes[squares.argmin(1)])


def _probe(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=x.shape[1]))
    return np.asarray(probe.fit(x, y).predict(asked))


def nearest_first(found: np.ndarray, start: int, sign: int) -> Sequence[int]:
    """From `start` on, always the nearest item that is left (farthest with `sign` -1)."""
    order, left = [start], set(range(len(found))) - {start}
    while left:
        order.append(min(sorted(left), key=lambda i: sign * found[order[-1], i]))
        left.remove(order[-1])
    return order
