"""Samples of a class that stand for it: where they are, and what they say if they are texts."""

from __future__ import annotations

import inspect
from itertools import zip_longest
from typing import Any

import torch

from cl_platform.config.registry import load
from cl_platform.config.signatures import Section
from cl_platform.core.samples import Samples
from cl_platform.core.stream import Stream
from cl_platform.errors import printable
from streams.data.own import Source


def examples(stream: Stream, c: int, n: int) -> list[tuple[Samples, int]]:
    """Return where `n` training samples of class `c` are, spread over its data and, by turns, over
    the experiences that it is in."""
    found = []
    for e in stream.experiences:
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
    read = inspect.unwrap(load("stream", section["name"]))  # what a door is made of
    known = inspect.signature(read).parameters
    source: Any = None
    if inspect.signature(read, eval_str=True).return_annotation is Source:
        source = read(**{name: value for name, value in section.items() if name in known})
    found = _first_texts(source) if source is not None and source.encode else {}
    tokenizer = section.get("tokenizer")
    if not found and tokenizer:
        found = _decoded(stream, tokenizer)
    return {name: printable(" ".join(text.split())) for name, text in found.items()}


def _first_texts(source: Source) -> dict[str, str]:
    found: dict[str, str] = {}
    for part, rows in source.read():
        if part == "train" and not hasattr(rows.x, "dtype"):
            for text, label in zip(rows.x, rows.labels, strict=True):
                found.setdefault(label, text)
    return found


def _decoded(stream: Stream, tokenizer: str) -> dict[str, str]:
    from cl_platform.models.hub import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    found = {}
    for c, name in enumerate(stream.class_names):
        for samples, row in examples(stream, c, 1):
            ids = samples.gather(torch.tensor([row]))[0].tolist()
            found[name] = str(loaded.decode(ids, skip_special_tokens=True))
    return found
