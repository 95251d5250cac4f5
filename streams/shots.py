"""Few training samples of each class: drawn by a seed, or named by lists of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import PositiveInt
from torch import Tensor

from cl_platform import Experience, Stream
from cl_platform.core.rng import seed_for
from cl_platform.errors import BadInput, one_line

Shots = PositiveInt | Sequence[PositiveInt | None] | None


def with_shots(stream: Stream, shots: Shots, seed: int, lists: str | None) -> Stream:
    """Return a stream with so many training samples of each class, which its name tells.

    Args:
        shots: of all experiences or of each, the last item for all that follow; None takes all.
        seed: of the draw; the draw of more shots contains that of fewer.
        lists: a folder of ``session_1.txt``, ``session_2.txt``, ... that name the samples of the
            experiences instead; one without a file is drawn.

    Raises:
        BadInput: a class has fewer samples, a list does not fit its experience, or has not `shots`
            samples of each class.
    """
    wanted = _of_each(shots, len(stream))
    if lists is not None and not any(_file(lists, k).is_file() for k in range(len(stream))):
        raise BadInput(
            f"stream.index_lists={lists}: expected a folder with session_1.txt to "
            f"session_{len(stream)}.txt, or some of them"
        )
    found = []
    for k, (e, n) in enumerate(zip(stream.experiences, wanted, strict=True)):
        if lists is not None and _file(lists, k).is_file():
            e = e.subset(_listed(e, _file(lists, k)))
            _check(e, n, stream.class_names, f"{_file(lists, k)} names")
        elif n is not None:
            _check(e, n, stream.class_names, f"stream.shots={n}: there are", at_least=True)
            e = e.subset(_drawn(e, n, seed_for(seed, k, "shots")))
        found.append(e)
    note = _note(shots) if lists is None else "listed samples"
    return replace(stream, name=f"{stream.name} ({note})", experiences=tuple(found))


def _note(shots: Shots) -> str:
    if not isinstance(shots, Sequence):
        return f"shots: {shots}"
    return f"shots: {', '.join('all' if n is None else str(n) for n in shots)}"


def _of_each(shots: Shots, n: int) -> list[int | None]:
    items = list(shots) if isinstance(shots, Sequence) else [shots]
    if not items or len(items) > n:
        raise BadInput(
            f"stream.shots has {len(items)} items, and the stream {n} experiences: give at most "
            "one for each; the last holds for all that follow"
        )
    return items + [items[-1]] * (n - len(items))


def _file(folder: str, k: int) -> Path:
    return Path(folder).expanduser() / f"session_{k + 1}.txt"


def _check(
    e: Experience, n: int | None, names: Sequence[str], what: str, *, at_least: bool = False
) -> None:
    """Raise BadInput where a class has not n training samples, or fewer of them."""
    if n is None:
        return
    for c in e.classes:
        found = int((e.train.y == c).sum())
        if found < n or (found > n and not at_least):
            raise BadInput(
                f"{what} {found} training samples of class {names[c]!r} in experience "
                f"{e.name[:60]!r}; expected {n}"
            )


def _drawn(e: Experience, n: int, seed: int) -> Tensor:
    """Draw n of the rows of each class, in the order of the rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for c in e.classes:
        own = torch.nonzero(e.train.y == c).flatten()
        rows.append(own[torch.randperm(len(own), generator=generator)[:n]])
    return torch.cat(rows).sort().values


def _listed(e: Experience, file: Path) -> Tensor:
    """Return the rows of an experience that a list names, one number of a sample a line.

    Source: the lists ``data/index_list/cifar100/session_k.txt`` of Tao et al. 2020 and followers,
    numbers of images in the official order of the training data.
    """
    try:
        lines = file.read_text("utf-8").split()
        numbers = torch.tensor([int(line) for line in lines], dtype=torch.int64)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{file} cannot be read ({one_line(error)}); expected the number of a training sample "
            "on each line"
        ) from error
    found = torch.isin(e.train.index, numbers)
    if int(found.sum()) != len(numbers) or not len(numbers):
        strange = numbers[~torch.isin(numbers, e.train.index)].tolist()
        why = f"such as {strange[0]}" if strange else "or some of them twice"
        raise BadInput(
            f"{file} names {len(numbers)} samples, of which experience {e.name[:60]!r} has "
            f"{int(found.sum())} for training ({why}): give lists for its classes, data in the "
            "order that they number, and no validation share"
        )
    return found
