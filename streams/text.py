"""Streams of texts, as counts of hashed words or as the token ids of a text encoder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import Field, PositiveInt

from cl_platform import Stream
from cl_platform.core.stream import Scenario
from streams.data.datasets import Dataset, load_dataset
from streams.sharing import Fraction, Named, chained

Length = Annotated[int, Field(ge=3)]  # the first and the last token carry no text


def _texts(dataset: str, *, tokenizer: str | None = None, tokens: Length = 64) -> Dataset:
    """Share out the classes of a text data set over experiences.

    Args:
        tokenizer: ``minilm``, a folder or a name on the hub; inputs are its token ids, (L,) int32.
            None gives counts of hashed words, (1, 1, 2048) uint8.
        tokens: longer texts are cut to this number, special tokens included.

    The other arguments are those of :func:`streams.sharing.share_out`.

    Raises:
        BadInput: the sizes do not add up, or the data or the tokenizer are not available.
    """
    return load_dataset(dataset, tokenizer, tokens)


split_text = chained(_texts, without=("by", "boundaries", "augmentation"), experiences="groups")


def text_sequence(
    dataset: str,
    *,
    tokenizer: str | None = None,
    tokens: Length = 64,
    scenario: Scenario = "class",
    validation: Fraction = 0.0,
    samples: PositiveInt | None = None,
    online: bool = False,
    held_out: Named = None,
) -> Stream:
    """Make an experience of each of several data sets, in a published order.

    Source: the first order of d'Autume et al. 2019 for five, and of Razdaibiedina et al. 2023 for
    fifteen data sets.

    Args:
        tokenizer, tokens, validation, samples, online: as for :func:`split_text`.
        held_out: data sets that are scored in every row and never learned, by number from 0 or by
            name.
        scenario: in ``class`` and ``task`` the labels of each data set are classes of its own; in
            ``domain`` labels of the same name are one class, and all are known from the start.
    """
    stream = split_text(
        dataset,
        tokenizer=tokenizer,
        tokens=tokens,
        scenario="task" if scenario == "task" else "class",
        validation=validation,
        samples=samples,
        online=online,
    )
    stream = replace(stream, name=stream.name.removeprefix("split-"))
    stream = _by_label(stream) if scenario == "domain" else stream
    return stream.holding_out(held_out) if held_out else stream


def _by_label(stream: Stream) -> Stream:
    """Make labels of the same name one class."""
    labels = [name.partition("/")[2] for name in stream.class_names]
    names = tuple(dict.fromkeys(labels))
    table = [names.index(label) for label in labels]
    parts = tuple(e.relabelled(table) for e in stream.experiences)
    return replace(stream, scenario="domain", experiences=parts, class_names=names, superclasses=())


split_clinc150 = partial(split_text, "clinc150")
# As for images: 8 sessions of 5 ways and 5 shots, after the rest of the 150 intents.
fscil_clinc150 = partial(split_text, "clinc150", experiences=[110, *[5] * 8], shots=[None, 5])
split_banking77 = partial(split_text, "banking77", experiences=7)
split_trec = partial(split_text, "trec")
split_newsgroups20 = partial(split_text, "newsgroups20", experiences=10)
text_cl5 = partial(text_sequence, "text-cl5")
text_cl15 = partial(text_sequence, "text-cl15")
