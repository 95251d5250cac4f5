"""Samples of a class that stand for it: where they are, and what they say if they are texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import zip_longest

import torch

from cl_platform.config.registry import load
from cl_platform.config.signatures import Section
from cl_platform.core.samples import Samples
from cl_platform.core.stream import Experience, Stream
from cl_platform.errors import printable
from streams.data.own import Source
from streams.inspection.findings import kind_of


def examples(experiences: Sequence[Experience], c: int, n: int) -> list[tuple[Samples, int]]:
    """Return where `n` training samples of class `c` are, spread over its data and, by turns, over
    the experiences that it is in."""
    found = []
    for e in experiences:
        rows = torch.nonzero(e.train.y == c).flatten()
        chosen = rows[torch.linspace(0, len(rows) - 1, min(n, len(rows))).long()]
        found.append([(e.train, row) for row in chosen.tolist()])
    by_turns = [sample for turn in zip_longest(*found) for sample in turn if sample is not None]
    return by_turns[:n]


def text_examples(section: Section, stream: Stream) -> dict[str, str]:
    """Return a training text for each class by name; nothing where none can be read.

    Texts come from the source itself, or out of token ids.

    Args:
        section: of the stream, complete.
    """
    found: dict[str, str] = {}
    while isinstance(section.get("inner"), dict):  # of a schedule: what it is made of has the texts
        section = section["inner"]
    kind = kind_of(stream)
    if kind in ("token ids", "word counts"):
        found = _first_texts(_source(section))
    if not found and kind == "token ids" and section.get("tokenizer"):
        found = _decoded(stream, section["tokenizer"])
    texts = {printable(name): printable(" ".join(text.split())) for name, text in found.items()}
    return {name: texts[name] for name in stream.class_names if name in texts}


def _source(section: Section) -> Source | None:
    """Return the source of a stream that is made by a door."""
    read = inspect.unwrap(load("stream", section["name"]))
    signature = inspect.signature(read)
    if signature.return_annotation not in (Source, Source.__name__):
        return None
    source: Source = read(**{k: v for k, v in section.items() if k in signature.parameters})
    return source


def _first_texts(source: Source | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for part, rows in source.read() if source else ():
        if part == "train" and not hasattr(rows.x, "dtype"):
            for text, label in zip(rows.x, rows.labels, strict=True):
                found.setdefault(label, text)
    return found


def _decoded(stream: Stream, tokenizer: str) -> dict[str, str]:
    from cl_platform.models.hub import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    found = {}
    for c, name in enumerate(stream.class_names):
        for samples, row in examples(stream.experiences, c, 1):
            ids = samples.gather(torch.tensor([row]))[0].tolist()
            found[name] = str(loaded.decode(ids, skip_special_tokens=True))
    return found
