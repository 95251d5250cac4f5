"""Streams of tables: CSV, TSV, JSON lines and Parquet, with columns for text or numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from cl_platform.errors import DataError
from streams.data.columns import PART_OF, WORDS, Wanted, columns_of, rows_of
from streams.data.own import Part, Rows, Source
from streams.data.tables import ENDINGS, ending, read_frame
from streams.data.text_formats import encoder, encoder_key
from streams.doors import door
from streams.text import Length

Paths = str | Sequence[str]


@door
def table(
    path: Paths,
    *,
    test_path: Paths | None = None,
    validation_path: Paths | None = None,
    text: str | None = None,
    features: str | Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    task: str | None = None,
    time: str | None = None,
    by: str | None = None,
    tokenizer: str | None = None,
    tokens: Length = 64,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Source:
    """Share out the rows of tables in files: .csv, .tsv, .jsonl or .parquet, also packed (.gz).

    Columns that are not given are found by their usual names: label, class, category, intent,
    target; text, sentence, utterance, question, content; split; task; time, date, timestamp.
    Without a text, all other columns of numbers are features, but for id and index.

    Args:
        path: a file, several of the same columns, or a folder with train, test and validation
            files.
        test_path, validation_path: files of these parts; `path` is then for training.
        text: the column of texts; see `tokenizer`.
        features: columns of numbers, or of lists of numbers, that make an input, (D,) float32.
        label: the column of classes, by name; whole numbers and true or false are names as well.
        split: the column that says train, validation or test.
        task, time: columns for ``by=task`` and ``by=time``, names or numbers; dates in ISO 8601.
        by: these, or any other column.
        tokenizer, tokens: as for :func:`streams.text.split_text`.
        separator: of CSV and TSV, if not comma and tab.
        encoding: of text files, such as latin-1.
    """
    files = _files(path, test_path, validation_path)
    given = {"label": label, "text": text, "split": split, "task": task, "time": time}
    wanted = Wanted(given, [features] if isinstance(features, str) else features, by)

    def read() -> Iterator[tuple[Part, Rows]]:
        columns = None
        for part, file in files:
            frame = read_frame(file, separator, encoding)
            columns = columns or columns_of(frame, wanted, str(file))
            for named, rows in rows_of(frame, columns, str(file)):
                yield (named if columns.split else part), rows

    return Source(
        name=_name([file for _, file in files]),
        read=read,
        files=[file for _, file in files],
        reading={
            "files": [(part, str(file.absolute())) for part, file in files],
            "columns": asdict(wanted),
            "text": [separator, encoding, *encoder_key(tokenizer, tokens)],
        },
        encode=encoder(tokenizer, tokens),
    )


def _files(path: Paths, test: Paths | None, validation: Paths | None) -> list[tuple[Part, Path]]:
    """Return all files, each with the part that it is of."""
    given: dict[Part, Paths | None] = {"train": path, "validation": validation, "test": test}
    if isinstance(path, str) and (folder := Path(path).expanduser()).is_dir():
        if test or validation:
            raise DataError(f"{folder} is a folder: give the file for training, or nothing else")
        given = _parts_of(folder)
    found = [
        (part, Path(file).expanduser())
        for part, files in given.items()
        for file in ([files] if isinstance(files, str) else files or ())
    ]
    if not any(part == "train" for part, _ in found):
        raise DataError("stream.path is empty: give a file, or several")
    if absent := [str(file) for _, file in found if not file.is_file()]:
        raise DataError(f"there is no file {absent[0]}; give {', '.join(ENDINGS)} files")
    return found


def _parts_of(folder: Path) -> dict[Part, Paths | None]:
    """Return the tables of a folder by what their names begin with: train, validation or test."""
    parts: dict[Part, list[str]] = {}  # of pieces as well: train-00000-of-00002.parquet
    for file in sorted(folder.iterdir()):
        part = _part(file)
        if part and ending(file) in ENDINGS:
            parts.setdefault(part, []).append(str(file))
    if "train" not in parts:
        raise DataError(f"{folder} holds no table for training: name it train.csv or give a file")
    return {part: parts.get(part) for part in WORDS}


def _part(file: Path) -> Part | None:
    return PART_OF.get(re.split(r"[^a-z]", file.name.lower())[0])


def _name(files: Sequence[Path]) -> str:
    """Return what people call the data: the name of its file, or folder if that is *train*."""
    first = files[0]
    return first.absolute().parent.name if _part(first) else first.name.partition(".")[0]
