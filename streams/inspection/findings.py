"""What a stream holds, and what is odd about it, before anything is trained on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_platform.core.preprocess import holds_tokens
from cl_platform.core.samples import Samples
from cl_platform.core.stream import Experience, Stream
from streams.data.text_formats import WORD_BUCKETS

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
ROWS = 4096  # read at a time
NAMED = 3  # cases that are named where there are many
TINY = 10  # training samples of a class
COARSE = 20  # test samples of an experience: one of them is 5 points of its accuracy
UNEVEN = 10  # training samples of the largest class to those of the smallest

Findings = dict[str, Any]
"""As :func:`find` returns them; JSON holds them."""


def find(stream: Stream) -> Findings:
    """Return the classes, sizes, range, duplicates and experiences of a stream.

    Duplicates are inputs of the same bytes, after a domain's transformation and before
    normalisation. Rows are numbered from 0 in their data set. `columns` is what is scored, where
    that is not the experiences themselves. `warnings` holds what a person should look at: a message
    each, and some of its cases.
    """
    rows, inputs = _rows(stream)
    classes = _classes(stream, rows)
    sizes = [c["train"] for c in classes if c["train"]]
    found = {
        "stream": stream.name,
        "scenario": stream.scenario,
        "online": stream.online,
        "inputs": inputs,
        "samples": {split: int((rows["split"] == split).sum()) for split in SPLITS},
        "classes": classes,
        "imbalance": max(sizes) / min(sizes),
        "experiences": [_experience(stream, e) for e in stream.experiences],
        "columns": [_column(stream, e) for e in stream.columns],
        "duplicates": _duplicates(stream, rows),
    }
    return {**found, "warnings": list(_warnings(found))}


def kind_of(stream: Stream) -> str:
    """Return what its inputs are: images, numbers, token ids or word counts."""
    source, shape = stream.experiences[0].train.source, stream.input_shape
    if holds_tokens(source):
        return "token ids"
    if shape == (1, 1, WORD_BUCKETS) and source.dtype == torch.uint8:
        return "word counts"
    return "images" if len(shape) == 3 else "numbers"


class _Numbers:
    """The smallest, largest and mean number of inputs that come in pieces, and their spread."""

    def __init__(self) -> None:
        self.low: Any = np.inf  # of each feature
        self.high: Any = -np.inf
        self.total = self.squares = 0.0
        self.count = self.constant = 0

    def add(self, x: np.ndarray) -> None:
        """Take in inputs (n, D)."""
        self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        wide = x.astype(np.float64)
        self.total += wide.sum()
        self.squares += np.square(wide).sum()
        self.count += x.size
        self.constant += int((x.min(1) == x.max(1)).sum()) if x.shape[1] > 1 else 0

    def summary(self) -> Findings:
        mean = self.total / self.count
        return {
            "smallest": float(self.low.min()),
            "largest": float(self.high.max()),
            "mean": mean,
            "std": max(0.0, self.squares / self.count - mean**2) ** 0.5,
            "constant": self.constant,
            "constant_features": int((self.low == self.high).sum()),
        }


def _rows(stream: Stream) -> tuple[pd.DataFrame, Findings]:
    """Return a row for each sample (split, experience, row, class, content), and its inputs."""
    import pandas as pd

    parts, content, numbers = [], [], _Numbers()
    for experience, split, samples in _samples(stream):
        for x in _pieces(samples):
            content += [blake2b(row, digest_size=16).digest() for row in x]
            if split == "train":
                numbers.add(x)
        source = f"{samples.fingerprint} {samples.transform and samples.transform.identity}"
        columns = {"row": samples.index.numpy(), "class": samples.y.numpy(), "source": source}
        parts.append(pd.DataFrame({"split": split, "experience": experience, **columns}))
    rows = pd.concat(parts, ignore_index=True)
    rows["content"] = pd.factorize(np.array(content, dtype=object))[0]
    if stream.columns:  # what is learned several times is one sample
        rows = rows.drop_duplicates(["split", "source", "row"], ignore_index=True)
    first = stream.experiences[0].train
    inputs = {
        "kind": kind_of(stream),
        "shape": list(stream.input_shape),
        "dtype": str(first.source.dtype).removeprefix("torch."),
        "bytes": len(rows) * first.source[:1].nbytes,
        "mapped": first.mapped,
        **numbers.summary(),
    }
    return rows, inputs


def _samples(stream: Stream) -> Iterator[tuple[int, str, Samples]]:
    """Yield the place, split and samples of what is learned and what is scored."""
    for place, e in enumerate(_places_of(stream)):
        learned = place < len(stream)
        for split in SPLITS:
            if not stream.columns or learned == (split == "train"):
                yield place, split, getattr(e, split)


def _places_of(stream: Stream) -> tuple[Experience, ...]:
    return (*stream.experiences, *stream.columns)


def _pieces(samples: Samples) -> Iterator[np.ndarray]:
    """Yield the inputs of samples as (n, D), some thousands at a time."""
    for rows in torch.arange(len(samples)).split(ROWS):
        if len(rows):
            yield np.ascontiguousarray(samples.gather(rows).flatten(1).numpy())


def _classes(stream: Stream, rows: pd.DataFrame) -> list[Findings]:
    counts = {
        split: np.bincount(rows.loc[rows["split"] == split, "class"], minlength=stream.n_classes)
        for split in SPLITS
    }
    where: list[list[int]] = [[] for _ in range(stream.n_classes)]
    for number, e in enumerate(stream.experiences):
        for c in e.classes:
            where[c].append(number)
    return [
        {"name": name, **{s: int(counts[s][c]) for s in SPLITS}, "experiences": where[c]}
        for c, name in enumerate(stream.class_names)
    ]


def _experience(stream: Stream, e: Experience) -> Findings:
    sizes = {split: len(getattr(e, split)) for split in SPLITS}
    names = [stream.class_names[c] for c in e.classes]
    return {"name": e.name, "classes": names, **sizes, "identity": e.identity}


def _column(stream: Stream, e: Experience) -> Findings:
    """Return what is scored together, and how many of the experiences belong to it."""
    steps = sum(step.task == e.task for step in stream.experiences)
    return {**_experience(stream, e), "steps": steps}


def _duplicates(stream: Stream, rows: pd.DataFrame) -> Findings:
    """Return how many rows repeat another one, and some of them, in three ways."""
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    learned = rows[rows["split"] != "test"]
    twice = train[train.duplicated("content", keep=False)]
    leaked = test[test["content"].isin(learned["content"])]
    both = learned[learned["content"].isin(leaked["content"])]
    labels = rows.drop_duplicates(["content", "class"])
    disputed = labels[labels.duplicated("content", keep=False)]
    return {
        "within_train": {
            "rows": int(train.duplicated("content").sum()),
            "cases": _cases(stream, [twice]),
        },
        "in_train_and_test": {"rows": len(leaked), "cases": _cases(stream, [leaked, both])},
        "labels_differ": {
            "inputs": int(disputed["content"].nunique()),
            "cases": _cases(stream, [disputed]),
        },
    }


def _cases(stream: Stream, sides: Sequence[pd.DataFrame]) -> list[list[Findings]]:
    """Return where some of the contents are: two rows of each, one a side where there are two."""
    contents = sides[0]["content"].unique()[:NAMED]
    rows = [[side[side["content"] == c].to_dict("records") for side in sides] for c in contents]
    pairs = [[r[0] for r in found] if len(sides) > 1 else found[0][:2] for found in rows]
    return [[_place(stream, row) for row in pair] for pair in pairs]


def _place(stream: Stream, row: Any) -> Findings:
    return {
        "split": row["split"],
        "row": int(row["row"]),
        "class": stream.class_names[row["class"]],
        "experience": _places_of(stream)[row["experience"]].name,
    }


def _warnings(found: Findings) -> Iterator[Findings]:
    yield from _of_duplicates(found)
    lines = [*_of_classes(found), *_of_experiences(found), *_of_inputs(found)]
    yield from ({"message": line, "cases": []} for line in lines)


def _of_classes(found: Findings) -> Iterator[str]:
    classes = found["classes"]
    for split, word in (("train", "training"), ("test", "test")):
        if none := [c["name"] for c in classes if not c[split]]:
            yield f"{_counted(len(none), 'class')} without {word} samples: {_some(none)}"
    if tiny := [c for c in classes if 0 < c["train"] < TINY]:
        few = _some([f"{c['name']} ({c['train']})" for c in tiny])
        yield f"{_counted(len(tiny), 'class')} of fewer than {TINY} training samples: {few}"
    if found["imbalance"] > UNEVEN:
        sizes = {c["train"]: shortened(c["name"]) for c in classes if c["train"]}
        yield (
            f"the largest class, {sizes[max(sizes)]}, has {found['imbalance']:.0f} times as many "
            f"training samples as the smallest, {sizes[min(sizes)]}"
        )


def _of_experiences(found: Findings) -> Iterator[str]:
    experiences = found["columns"] or found["experiences"]
    if single := [e["name"] for e in experiences if len(e["classes"]) == 1]:
        sure = ", which the task label gives away" * (found["scenario"] == "task")
        yield f"{_counted(len(single), 'experience')} of a single class{sure}: {_some(single)}"
    if coarse := [e for e in experiences if 0 < e["test"] < COARSE]:
        names = [f"{e['name']} ({e['test']})" for e in coarse]
        yield (
            f"{_counted(len(coarse), 'experience')} of fewer than {COARSE} test samples, a coarse "
            f"measure: {_some(names)}"
        )
    if untested := [e["name"] for e in experiences if not e["test"]]:
        yield f"{_counted(len(untested), 'experience')} without test samples: {_some(untested)}"


def _of_duplicates(found: Findings) -> Iterator[Findings]:
    within, across, differ = found["duplicates"].values()
    train, test = found["samples"]["train"], found["samples"]["test"]
    if n := across["rows"]:
        message = f"{_counted(n, 'test sample')} ({_share(n, test)}) also in the training data"
        yield {"message": message, "cases": _equal(across)}
    if n := differ["inputs"]:
        yield {"message": f"{_counted(n, 'input')} with several labels", "cases": _equal(differ)}
    if n := within["rows"]:
        message = f"{_counted(n, 'training sample')} ({_share(n, train)}) equal to another one"
        yield {"message": message, "cases": _equal(within)}


def _equal(found: Findings) -> list[str]:
    """Return equal rows as people read them: ``test 3 = train 17 (tulip)``."""
    return [" = ".join(_places(case)) for case in found["cases"]]


def _places(case: list[Findings]) -> Iterator[str]:
    classes = [shortened(row["class"]) for row in case]
    for i, row in enumerate(case):
        named = i == len(case) - 1 or classes[i] != classes[i + 1]
        yield f"{row['split']} {row['row']}" + f" ({classes[i]})" * named


def _share(n: int, of: int) -> str:
    return "less than 0.1 %" if n < of / 1000 else f"{100 * n / of:.1f} %"


def _of_inputs(found: Findings) -> Iterator[str]:
    inputs = found["inputs"]
    if n := inputs["constant"]:
        blank = {"word counts": "without words", "images": "all of one colour"}
        what = blank.get(inputs["kind"], "all of one number")
        yield f"{_counted(n, 'training input')} {what}"
    if inputs["kind"] == "numbers" and (n := inputs["constant_features"]):
        of = math.prod(inputs["shape"])
        yield f"{_counted(n, 'feature')} of {of} without variation in training"


def _counted(n: int, what: str) -> str:
    plural = what if n == 1 else f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{n:,} {plural}"


def shortened(name: str, width: int = 30) -> str:
    """Cut a name to `width` characters, in its middle: names often differ at their end."""
    if len(name) <= width:
        return name
    begin = (width - 1) // 2
    return f"{name[:begin]}\N{HORIZONTAL ELLIPSIS}{name[begin + 1 - width :]}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    listed = ", ".join(map(shortened, names[:NAMED]))
    return f"{listed} and {more:,} more" if more > 0 else listed
