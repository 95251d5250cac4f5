"""Streams of what a person has in Python: arrays, tensors, and torch's data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cl_platform import Stream
from cl_platform.errors import BadInput
from streams.data.array_rows import Layout, as_array, rows_of
from streams.data.own import Part, Rows, Source
from streams.data.pictures import Channels, Form, Size
from streams.data.torch_datasets import Reading, read_dataset
from streams.doors import stream_of
from streams.row_groups import SOURCE

PARTS: tuple[Part, ...] = ("train", "test", "validation")


def from_arrays(
    x: Any,
    y: Any,
    x_test: Any = None,
    y_test: Any = None,
    *,
    x_validation: Any = None,
    y_validation: Any = None,
    class_names: Sequence[str] | None = None,
    columns: Mapping[str, Any] | None = None,
    test_columns: Mapping[str, Any] | None = None,
    layout: Layout = "auto",
    name: str = "arrays",
    **scenario: Any,
) -> Stream:
    """Make a stream of arrays or tensors.

    Args:
        x, x_test, x_validation: images (n, C, H, W), (n, H, W, C), (n, H, W), or numbers (n, ...).
        y, y_test, y_validation: numbers or names of classes, (n,).
        class_names: of the labels 0, 1, ...; None takes the labels.
        columns, test_columns: further values of each row by name, each (n,), for `by`.
        layout: where inputs (n, ., ., .) have their channels; ``auto`` looks for 1, 3 or 4 of them.
        name: what people read.
        scenario: parameters of :func:`streams.doors.opened` and :func:`streams.sharing.share_out`.

    Raises:
        BadInput: these do not fit together.
        ConfigError: a parameter is wrong; one line each.
    """
    given = [(x, y, columns), (x_test, y_test, test_columns), (x_validation, y_validation, None)]

    def read() -> Iterator[tuple[Part, Rows]]:
        for part, (inputs, labels, values) in zip(PARTS, given, strict=True):
            if (inputs is None) != (labels is None):
                raise BadInput(f"the {part} part needs inputs and labels: give both")
            if inputs is not None:
                for rows in rows_of(inputs, labels, class_names, values, layout):
                    yield part, rows

    return stream_of(Source(name, read), scenario)


def from_dataset(
    dataset: Any, test: Any = None, *, validation: Any = None, name: str | None = None, **given: Any
) -> Stream:
    """Make a stream of a torch data set; see :func:`from_datasets` for what is `given`."""
    parts = {"train": [dataset], "test": [test], "validation": [validation]}
    return _of_datasets(parts, [name or type(dataset).__name__], **given)


def from_datasets(
    datasets: Sequence[Any],
    tests: Sequence[Any] | None = None,
    *,
    validations: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    **given: Any,
) -> Stream:
    """Make a stream of several torch data sets, one experience each.

    Labels with the same name are one class. All other parameters of sharing out can be given as
    well: ``experiences=5`` shares out the classes of all of them.

    Args:
        tests, validations: as many as `datasets`, or none.
        names: of the data sets, and so of the experiences.
        given: ``class_names`` (None takes the data sets' ``classes``), ``columns``,
            ``test_columns`` and ``layout`` as for :func:`from_arrays`; ``size``, ``crop``,
            ``channels`` and ``background`` of images as for :func:`streams.folder.folder`;
            ``freeze_random=True`` keeps one draw of random transforms; the rest is as for
            :func:`streams.sharing.share_out`.

    Raises:
        BadInput: a data set is not map-style, or its transforms are random.
        ConfigError: a parameter is wrong; one line each.
    """
    datasets = list(datasets)
    names = [str(name) for name in names or _numbered(datasets)]
    parts = {"train": datasets, "test": tests, "validation": validations}
    counts = {part: len(found) for part, found in parts.items() if found is not None}
    if (
        not datasets
        or {*counts.values(), len(names)} != {len(datasets)}
        or len(set(names)) < len(names)
    ):
        raise BadInput(
            f"{counts} data sets with names {names!r:.100}: give as many of each part, and each a "
            "name of its own"
        )
    return _of_datasets({part: found for part, found in parts.items() if found}, names, **given)


def _of_datasets(
    parts: Mapping[str, Sequence[Any]],
    names: Sequence[str],
    *,
    class_names: Sequence[str] | None = None,
    columns: Mapping[str, Any] | None = None,
    test_columns: Mapping[str, Any] | None = None,
    size: Size | None = None,
    crop: bool = True,
    channels: Channels = "auto",
    background: str = "white",
    layout: Layout = "auto",
    freeze_random: bool = False,
    **scenario: Any,
) -> Stream:
    form = Form(size, crop, channels, background)
    reading = Reading(form, layout, class_names, freeze_random)
    of_part = {"train": columns or {}, "test": test_columns or {}}

    def read() -> Iterator[tuple[Part, Rows]]:
        for part in PARTS:
            values, start = {k: as_array(v) for k, v in of_part.get(part, {}).items()}, 0
            for name, dataset in zip(names, parts.get(part, ()), strict=False):
                for rows in () if dataset is None else read_dataset(dataset, reading, source.notes):
                    end = start + len(rows.labels)
                    columns = {k: v[start:end] for k, v in values.items()}
                    if len(names) > 1:
                        columns[SOURCE] = np.full(end - start, name)
                    yield part, replace(rows, columns=columns)
                    start = end

    source = Source("+".join(names), read)
    return stream_of(source, scenario)


def _numbered(datasets: Sequence[Any]) -> list[str]:
    """Return the names of their types, numbered where there are several of one type."""
    types = [type(dataset).__name__ for dataset in datasets]
    return types if len(set(types)) == len(types) else [f"{t} {i}" for i, t in enumerate(types)]
