"""Benchmarks of Avalanche as streams."""

from __future__ import annotations

from collections.abc import Sequence
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_platform.avalanche.data import in_group, leaf_of, quiet
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import global_generators
from cl_platform.core.samples import Samples
from cl_platform.core.stream import Experience, Scenario, Stream
from cl_platform.errors import BadInput, say_once

VALIDATION = ("valid", "validation", "val")
TRIED = 64  # samples of an experience that are read twice, to see whether they come out the same

ONLINE = "give the benchmark before that, and dataclasses.replace(stream, online=True)"

Group = str
"""A group of transformations of a data set: "train" or "eval"."""


def stream_of(benchmark: Any, name: str, scenario: Scenario | None) -> Stream:
    """Return a benchmark as a stream; see :meth:`Stream.from_avalanche`."""
    name = name or type(benchmark).__name__
    with quiet():
        streams = {s: _experiences(given, s, name) for s, given in _streams(benchmark).items()}
        if "train" not in streams or "test" not in streams:
            raise BadInput(
                f"benchmark {name} has the streams {', '.join(streams) or 'none'}: a stream is "
                "made of one called train and one called test; give the benchmark both"
            )
        held_out = next((streams[s] for s in VALIDATION if s in streams), [])
        reader = _Reader(name)
        groups = [_training_group(e, name) for e in streams["train"]]
        read = [reader.read(e, g) for e, g in zip(streams["train"], groups, strict=True)]
        read_later = [
            [reader.read(e, "eval") for e in found] for found in (held_out, streams["test"])
        ]
        train = [reader.samples(places) for places in read]
        held_out_and_test = [
            _matched(name, streams["train"], train, found, [reader.samples(p) for p in places])
            if found
            else [samples.emptied() for samples in train]
            for found, places in zip((held_out, streams["test"]), read_later, strict=True)
        ]
    labels = [_task_labels(e) for e in streams["train"]]
    scenario = scenario or _scenario(name, labels, [s.classes for s in train])
    parts = list(zip(train, *held_out_and_test, strict=True))
    n_classes = 1 + max(max(s.classes) for part in parts for s in part if len(s))
    names = _class_names(streams["train"], n_classes)
    titles = _titles(parts, names, scenario)
    experiences = tuple(
        Experience(titles[k], tuple(set().union(*(s.classes for s in part))), k, *part)
        for k, part in enumerate(parts)
    )
    units = parts[0][0].source.dtype == torch.uint8
    channels = parts[0][0].source.shape[1]
    # As torchvision's ToTensor has them; what was transformed stays as it came out.
    scaled = Preprocess((0.0,) * channels, (255.0,) * channels) if units else Preprocess()
    return Stream(name, scenario, experiences, names, scaled)


def _streams(benchmark: Any) -> dict[str, Any]:
    streams = getattr(benchmark, "streams", None)
    if not isinstance(streams, dict):
        kind = f"{type(benchmark).__module__}.{type(benchmark).__qualname__}"
        raise BadInput(f"{kind} is no benchmark of Avalanche: give what its generators return")
    return streams


def _experiences(stream: Any, stream_name: str, name: str) -> list[Any]:
    """Return the experiences of a stream.

    Raises:
        BadInput: they are made as they are asked for, or hold no labelled samples.
    """
    from avalanche.benchmarks import OnlineCLExperience
    from avalanche.benchmarks.scenarios.generic_scenario import GeneratorMemo

    where = f"stream {stream_name!r} of benchmark {name}"
    if isinstance(getattr(stream, "exps_iter", None), GeneratorType | GeneratorMemo):
        raise BadInput(
            f"{where} makes its experiences as they are asked for, and a stream has to know them "
            f"all: {ONLINE}"
        )
    experiences = list(stream)
    if not experiences:
        raise BadInput(f"{where} has no experience; give at least one")
    for i, e in enumerate(experiences):
        if isinstance(e, OnlineCLExperience):
            raise BadInput(
                f"{where} is split for online learning, which is a setting here: {ONLINE}"
            )
        data: Any = getattr(e, "dataset", None)
        targets = getattr(data, "targets", None)
        if targets is None:
            kind = "no class labels" if data is not None else "no data set"
            raise BadInput(f"{where}: experience {i} has {kind}: a stream needs labelled samples")
        if not len(data):
            raise BadInput(f"{where}: experience {i} has no samples: leave it out")
        if not isinstance(targets[0], int | np.integer | Tensor) or np.ndim(targets[0]):
            raise BadInput(
                f"{where}: experience {i} has targets like {f'{targets[0]!r:.40}'}: a stream has "
                "one class index per sample (no boxes, no values)"
            )
    return experiences


def _task_labels(experience: Any) -> set[int]:
    labels = getattr(experience.dataset, "targets_task_labels", None)
    return set() if labels is None else {int(t) for t in labels.uniques}


def _scenario(name: str, tasks: list[set[int]], classes: list[set[int]]) -> Scenario:
    """Return the scenario that task labels and classes speak of."""
    labels = [t for found in tasks for t in found]
    if len(labels) == len(tasks) == len({*labels}) > 1:
        return "task"
    if len({*labels}) > 1:
        say_once(
            f"benchmark {name}: experiences share task labels or have several, so these are left "
            "out; a task label here is of one experience"
        )
    return "class" if sum(map(len, classes)) == len(set().union(*classes)) else "domain"


def _class_names(experiences: Sequence[Any], n: int) -> tuple[str, ...]:
    """Return the names that the data sets below give to the classes; else their numbers.

    A benchmark may have numbered the classes anew: the labels of the data sets tell.
    """
    found: list[set[str]] = [set() for _ in range(n)]
    for experience in experiences:
        for i, label in enumerate(experience.dataset.targets):
            leaf, row = leaf_of(experience.dataset._flat_data, i)
            names, own = getattr(leaf, "classes", None), getattr(leaf, "targets", None)
            if not isinstance(names, list | tuple) or own is None:
                break
            found[int(label)].add(str(names[int(own[row])]))
    each = [name for names in found for name in names if len(names) == 1]
    return tuple(each) if len(each) == len({*each}) == n else tuple(map(str, range(n)))


def _titles(
    parts: Sequence[Sequence[Samples]], names: Sequence[str], scenario: Scenario
) -> list[str]:
    """Return the names of experiences: their classes, with a number where that does not tell."""
    titles = [" ".join(names[c] for c in sorted(part[0].classes)) for part in parts]
    short = [f"{names[0]}..{names[-1]}" if scenario == "domain" else title for title in titles]
    unlike = len({*short}) == len(short)
    return short if unlike else [f"{title} ({k})" for k, title in enumerate(short, start=1)]


def _training_group(experience: Any, name: str) -> Group:
    """Return which transformations the training data are read with: their own if these give the
    same sample each time, else those of evaluation, which is said."""
    data = experience.dataset
    tried = range(min(TRIED, len(data)))

    def read(seed: int) -> list[Any]:
        with global_generators(seed):
            return [_tensor(data._flat_data._getitem_recursive_call(i, "train")[0]) for i in tried]

    if all(torch.equal(a, b) for a, b in zip(read(0), read(1), strict=True)):
        return "train"
    say_once(
        f"benchmark {name}: its training transformations are random, and data are read once: "
        "training data get those of evaluation; give the stream an augmentation instead"
    )
    return "eval"


def _matched(
    name: str, train: list[Any], learned: list[Samples], given: list[Any], samples: list[Samples]
) -> list[Samples]:
    """Return for each training experience the samples of another stream that belong to it.

    They are at the same place; or of the same classes and task labels; or, of a single experience
    for all, those of its classes.
    """
    wanted = [(s.classes, _task_labels(e)) for e, s in zip(train, learned, strict=True)]
    found = [(s.classes, _task_labels(e)) for e, s in zip(given, samples, strict=True)]
    if len(given) == len(train) and all(f[0] <= w[0] for f, w in zip(found, wanted, strict=True)):
        return samples
    if len(given) == 1:
        return [samples[0].select(_among(samples[0].y, classes)) for classes, _ in wanted]
    places = [[i for i, f in enumerate(found) if f == w] for w in wanted]
    if all(len(p) == 1 for p in places):
        return [samples[i] for (i,) in places]
    kind = given[0].origin_stream.name
    k = next(k for k, p in enumerate(places) if len(p) != 1)
    raise BadInput(
        f"benchmark {name}: of the {len(given)} experiences of stream {kind!r}, {len(places[k])} "
        f"have the classes {sorted(wanted[k][0])!s:.60} of training experience {k} of "
        f"{len(train)}: give one for each, in the same order, or a single one for all"
    )


def _among(y: Tensor, classes: set[int]) -> Tensor:
    return torch.isin(y, torch.tensor(sorted(classes)))


def _tensor(x: Any) -> Tensor:
    """Return one input as a tensor; an image of rows, columns and channels has channels first."""
    if isinstance(x, Tensor):
        return x
    array = np.array(x)
    if array.ndim == 2:
        return torch.from_numpy(array)[None]
    image = array.ndim == 3 and array.dtype == np.uint8
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)) if image else array)


class _Reader:
    """Reads every sample of a benchmark once, whichever experiences have it.

    Samples are the same where they are the same row of the same data set under the same
    transformations: those of a data set that is split by classes become one source.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: dict[Any, dict[int, int]] = {}  # the place of each row in the lists below
        self._x: dict[Any, list[Tensor]] = {}
        self._y: dict[Any, list[int]] = {}
        self._sources: dict[Any, tuple[Tensor, str]] = {}

    def read(self, experience: Any, group: Group) -> list[tuple[Any, int]]:
        """Read the samples of an experience; return where each is: its table, and the place there.

        Raises:
            BadInput: a sample has another label than the data set says.
        """
        flat, targets = experience.dataset._flat_data, experience.dataset.targets
        places = []
        for i in range(len(flat)):
            table, row = _place(flat, i, group)
            rows = self._rows.setdefault(table, {})
            if row not in rows:
                x, y = flat._getitem_recursive_call(i, group)[:2]
                if int(y) != int(targets[i]):
                    raise BadInput(
                        f"benchmark {self.name}: sample {i} of an experience has label {int(y)}, "
                        f"and its data set's targets say {int(targets[i])}: make them agree"
                    )
                rows[row] = len(rows)
                self._x.setdefault(table, []).append(_tensor(x))
                self._y.setdefault(table, []).append(int(y))
            places.append((table, rows[row]))
        return places

    def samples(self, places: list[tuple[Any, int]]) -> Samples:
        """Return the samples at places, when all experiences have been read."""
        tables = {table for table, _ in places}
        y = torch.tensor([self._y[table][row] for table, row in places])
        if len(tables) > 1:
            return Samples.of(self._stacked([self._x[table][row] for table, row in places]), y)
        (table,) = tables
        if table not in self._sources:
            whole = Samples.of(self._stacked(self._x[table]), torch.tensor(self._y[table]))
            self._sources[table] = whole.source, whole.fingerprint
        source, fingerprint = self._sources[table]
        return Samples(source, torch.tensor([row for _, row in places]), y, fingerprint)

    def _stacked(self, inputs: list[Tensor]) -> Tensor:
        shapes = {tuple(x.shape) for x in inputs}
        if len(shapes) > 1:
            raise BadInput(
                f"benchmark {self.name}: its inputs have shapes such as "
                f"{' and '.join(map(str, sorted(shapes)[:2]))}: give them one, by a transformation"
            )
        return torch.stack(inputs)


def _place(flat: Any, i: int, group: Group) -> tuple[Any, int]:
    """Return what tells a data set under its transformations from others, and the row there."""
    changes: list[int] = []
    while hasattr(flat, "_get_idx"):
        for kind in ("_frozen_transform_groups", "_transform_groups"):
            if (groups := getattr(flat, kind, None)) is not None:
                changes += [id(change) for change in in_group(groups, group)]
        which, i = flat._get_idx(i)
        flat = flat._datasets[which]
    return (id(flat), *changes), i
