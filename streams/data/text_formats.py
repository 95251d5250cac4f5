"""Readers of published text data sets, and encoders of texts: hashed words or token ids."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.models.hub import token_ids, tokenizer_digest
from streams.data.formats import Array, Arrays

WORD_BUCKETS = 2048
CHUNK = 4096  # texts at a time

Labelled = list[tuple[str, str]]
"""Texts, each with the name of its class."""


@dataclass(frozen=True)
class Texts:
    """A text data set in memory.

    Args:
        train, test: its texts.
        class_names: in the order of their numbers.
        groups: names of classes that belong together.
    """

    train: Labelled
    test: Labelled
    class_names: list[str]
    groups: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in (self.train, self.test):
            labels = {name for _, name in split}
            strange = sorted(labels - set(self.class_names))
            if strange or not labels:
                raise ValueError(f"labels {strange} of no class" if strange else "it has no texts")


def as_arrays(texts: Texts, encode: Callable[[Sequence[str]], Array]) -> Arrays:
    """Encode the texts; training and test data together, so that their shapes agree."""
    number = {name: i for i, name in enumerate(texts.class_names)}
    n, both = len(texts.train), texts.train + texts.test
    y = np.array([number[name] for _, name in both], dtype=np.int64)
    x = encode([text for text, _ in both])
    groups = {group: [number[name] for name in names] for group, names in texts.groups.items()}
    return Arrays(x[:n], y[:n], x[n:], y[n:], texts.class_names, groups)


def hashed_words(texts: Sequence[str]) -> Array:
    """Count hashed words and pairs of words, (N, 1, 1, 2048) uint8; at most 255."""
    from sklearn.feature_extraction.text import HashingVectorizer

    count = HashingVectorizer(
        n_features=WORD_BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm=None
    )
    parts = [
        np.minimum(count.transform(texts[start : start + CHUNK]).toarray(), 255).astype(np.uint8)
        for start in range(0, len(texts), CHUNK)
    ]
    return np.concatenate(parts)[:, None, None]


def encoder(tokenizer: str | None, tokens: int) -> Callable[[Sequence[str]], Array]:
    """Return what turns texts into token ids, or without a tokenizer into hashed words."""
    if tokenizer is None:
        return hashed_words
    # All of one length, so that data that come later fit.
    return partial(token_ids, tokenizer=tokenizer, tokens=tokens, pad_to=tokens)


def encoder_key(tokenizer: str | None, tokens: int) -> list[str]:
    """Return what the arrays of an encoder depend on, as texts.

    Raises:
        DataError: there is no such tokenizer.
    """
    return [] if tokenizer is None else [str(tokens), tokenizer_digest(tokenizer)]


def read_clinc(folder: Path) -> Texts:
    """Read CLINC150 (Larson et al. 2019), its intents numbered domain by domain."""
    texts = _json(folder / "data_full.json")
    domains: dict[str, list[str]] = _json(folder / "domains.json")
    names = [intent for intents in domains.values() for intent in intents]
    train, test = ([(text, name) for text, name in texts[part]] for part in ("train", "test"))
    return Texts(train, test, names, domains)


def read_banking(folder: Path) -> Texts:
    """Read Banking77 (Casanueva et al. 2020)."""

    def part(name: str) -> Labelled:
        with (folder / name).open(encoding="utf-8-sig", newline="") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]

    return Texts(part("train.csv"), part("test.csv"), _json(folder / "categories.json"))


def read_trec(folder: Path) -> Texts:
    """Read TREC questions (Li & Roth 2002): 50 fine classes in 6 coarse ones."""

    def part(name: str) -> Labelled:
        lines = (folder / name).read_bytes().decode("latin-1").split("\n")
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return [(text, label) for label, text in pairs]

    train = part("train_5500.label")
    names = sorted({name for _, name in train})
    return Texts(train, part("TREC_10.label"), names, by_prefix(names, ":"))


def read_newsgroups(folder: Path) -> Texts:
    """Read 20 Newsgroups by date, in groups by the first word of their names."""
    names: list[str] = _json(folder / "meta.json")["labels"]
    train, test = (_labelled(folder / f"{part}.jsonl.gz", names) for part in ("train", "test"))
    return Texts(train, test, names, by_prefix(names, "."))


def read_newsgroups_archive(content: bytes) -> Texts:
    """Read the published archive, ``20news-bydate-train/GROUP/NUMBER``; without the headers, which
    name the group."""
    splits: dict[str, Labelled] = {"train": [], "test": []}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        posts = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        for path, file in sorted(posts.items()):
            if file is not None:
                folder, group, _ = path.split("/")[-3:]
                _, _, text = file.read().decode("latin-1").partition("\n\n")
                splits[folder.rpartition("-")[2]].append((text, group))
    names = sorted({group for _, group in splits["train"]})
    return Texts(splits["train"], splits["test"], names, by_prefix(names, "."))


def read_sequence(folders: dict[str, Path]) -> Texts:
    """Read data sets as one; the classes of each, named ``set/label``, are a group.

    Args:
        folders: of each set, with its ``set.train.jsonl.gz`` and ``set.test.jsonl.gz`` and a
            ``meta.json`` with its labels.
    """
    train: Labelled = []
    test: Labelled = []
    groups = {}
    for name, folder in folders.items():
        groups[name] = [f"{name}/{label}" for label in _json(folder / "meta.json")[name]["labels"]]
        train += _labelled(folder / f"{name}.train.jsonl.gz", groups[name])
        test += _labelled(folder / f"{name}.test.jsonl.gz", groups[name])
    return Texts(train, test, [name for names in groups.values() for name in names], groups)


def by_prefix(names: Iterable[str], separator: str) -> dict[str, list[str]]:
    """Group names by their text before the separator."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(separator)[0], []).append(name)
    return groups


def _labelled(path: Path, names: Sequence[str]) -> Labelled:
    """Read packed lines of {"text", "label"}; a label is an index into the names."""
    name_of = dict(enumerate(names))  # where -1 is not the last one
    with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
        return [(row["text"], name_of[row["label"]]) for row in map(json.loads, lines)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))
