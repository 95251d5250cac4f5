"""Experiences of which it is known what learning one does for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt

from cl_platform import Experience, Stream
from cl_platform.errors import BadInput
from streams.data.datasets import Dataset, load_dataset
from streams.sharing import Fraction, share_out
from streams.text import Length

Relation = Literal["positive", "none", "negative", "mixed"]
Several = Annotated[int, Field(ge=2)]
TEXTS = ("clinc150/kitchen_and_dining", "trec", "banking77")


class Part(NamedTuple):
    """Some classes of a data set, by the places of both, with their labels rotated by some."""

    dataset: int
    place: int
    rotated: int


def related(
    relation: Relation = "mixed",
    *,
    datasets: Sequence[str] = TEXTS,
    experiences: PositiveInt = 3,
    classes: Several = 4,
    tokenizer: str | None = None,
    tokens: Length = 64,
    validation: Fraction = 0.2,
    samples: PositiveInt | None = None,
) -> Stream:
    """Return a task-incremental stream whose experiences help, leave alone or mislead each other.

    After the sequences of Fisch et al. 2023, which were built so for text.

    Args:
        relation: ``positive``: further classes of the first data set; ``none``: classes of a
            different data set each; ``negative``: the same samples each time, with their labels
            rotated by one more; ``mixed``: one of each kind in turn.
        datasets: by name, of texts of about one length or images of one shape; with a group of
            classes, ``clinc150/travel``, that group alone. Inputs are scaled as in the first.
        classes: of each experience.
        tokenizer, tokens, validation, samples: as for ``split-trec``.

    Raises:
        BadInput: there are too few data sets or classes for so many experiences.
    """
    parts = [_part(relation, k, len(datasets)) for k in range(experiences)]
    if (most := max(p.rotated for p in parts)) >= classes:
        raise BadInput(
            f"stream.experiences={experiences} rotate {classes} labels {most} times, which brings "
            "them back: give fewer experiences or more classes"
        )
    stream: Stream | None = None
    for d in sorted({p.dataset for p in parts}):
        if d >= len(datasets):
            raise BadInput(
                f"stream.experiences={experiences} with relation={relation} need {d + 1} different "
                f"data sets or more, and stream.datasets has {len(datasets)}"
            )
        name, _, group = datasets[d].partition("/")
        data = load_dataset(name, tokenizer, tokens)
        last = max(p.place for p in parts if p.dataset == d)
        names = _names(data, group, classes * (last + 1))
        groups = [names[i : i + classes] for i in range(0, len(names), classes)]
        found = share_out(
            replace(data, groups={}),
            scenario="task",
            experiences=groups,
            validation=validation,
            samples=samples,
        )
        named = replace(found, class_names=tuple(f"{data.name}/{c}" for c in found.class_names))
        stream = named if stream is None else stream.followed_by(named)
    assert stream is not None
    return _arranged(stream, parts, relation)


def _part(relation: Relation, k: int, n_datasets: int) -> Part:
    """Return what the k-th experience is made of."""
    if relation == "mixed":
        turn, kind = divmod(k, 3)
        others = max(1, n_datasets - 1)
        return (Part(0, turn, 0), Part(1 + turn % others, turn // others, 0), Part(0, 0, turn + 1))[
            kind
        ]
    return {"positive": Part(0, k, 0), "none": Part(k, 0, 0), "negative": Part(0, 0, k)}[relation]


def _names(data: Dataset, group: str, n: int) -> list[str]:
    """Return the first n classes of a data set, or of a group of it."""
    if group and group not in data.groups:
        raise BadInput(
            f"{data.name} has no group {group!r:.50}: give one of {', '.join(data.groups)[:200]}"
        )
    classes = data.groups[group] if group else range(len(data.class_names))
    if n > len(classes):
        raise BadInput(
            f"{data.name} has {len(classes)} classes {f'in {group} ' if group else ''}and not the "
            f"{n} that are needed: lower stream.classes or stream.experiences"
        )
    return [data.class_names[c] for c in classes[:n]]


def _arranged(stream: Stream, parts: Sequence[Part], relation: Relation) -> Stream:
    """Return the parts of a stream, which has those of each data set in a row, in their order."""
    kept = sorted({p[:2] for p in parts})
    made = []
    for task, part in enumerate(parts):
        experience = stream[kept.index(part[:2])]
        made.append(replace(_rotated(experience, part.rotated, stream.n_classes), task=task))
    sources = dict.fromkeys(name.partition("/")[0] for name in stream.class_names)
    name = f"related-{relation} ({', '.join(sources)})"
    return replace(stream, name=name, experiences=tuple(made), superclasses=())


def _rotated(experience: Experience, by: int, n_classes: int) -> Experience:
    """Return an experience in which each class has the label of a later one of its own."""
    own = experience.classes
    to = {c: own[(i + by) % len(own)] for i, c in enumerate(own)}
    rotated = experience.relabelled([to.get(c, c) for c in range(n_classes)])
    return replace(rotated, name=f"{experience.name}, rotated by {by}") if by else rotated
