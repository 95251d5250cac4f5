"""Columns of a table, found by name or given, become texts or numbers with labels by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform.errors import DataError
from streams.data.own import Part, Rows

if TYPE_CHECKING:
    import pandas as pd

# Names by which columns are found where none are given, compared without case: of `split`, `task`
# and `time` the first that there is, of the others the only one.
USUAL = {
    "label": ("label", "labels", "class", "category", "intent", "target", "y"),
    "text": ("text", "sentence", "utterance", "question", "content"),
    "split": ("split", "partition", "fold"),
    "task": ("task",),
    "time": ("time", "date", "timestamp"),
}
WORDS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
PART_OF = {word: part for part, words in WORDS.items() for word in words}
SAMPLED = 1000  # rows by which columns of numbers are known
NUMBERED = ("", "id", "idx", "index", "unnamed: 0")  # columns that number the rows


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Args:
        label: the class of a row, by name.
        text: what is learned from, or None.
        features: columns of numbers, or of lists of numbers, that are learned from.
        split: says of each row whether it is for training, validation or test.
        others: columns that rows may be shared out by, by the name that they have there.
    """

    label: str
    text: str | None
    features: tuple[str, ...]
    split: str | None
    others: Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """Which columns a person named.

    Args:
        given: the column of each role of :data:`USUAL` (`split` may be absent); None stands for one
            with a usual name.
        features: columns of numbers; None stands for all where there is no text.
        by: what rows are shared out by: ``task``, ``time`` or any column.
    """

    given: Mapping[str, str | None]
    features: Sequence[str] | None
    by: str | None


def columns_of(
    frame: pd.DataFrame, wanted: Wanted, where: str, image: str | None = None
) -> Columns:
    """Return which column of a table is what.

    Args:
        where: what people call the table.
        image: the column of images that is learned from instead, if there is one.

    Raises:
        DataError: a column is missing, or it is not clear which one is meant.
    """
    names, given, by = list(frame.columns), wanted.given, wanted.by
    found = {role: _named(names, role, column, where) for role, column in given.items()}
    if (label := found["label"]) is None:
        raise DataError(f"{where} has no column of labels: give stream.label; {listed(names)}")
    learned = {"text": given["text"], "features": wanted.features, "image": image}
    if len(several := [name for name, column in learned.items() if column]) > 1:
        raise DataError(f"stream.{' and stream.'.join(several)} are given; give one of them")
    text = None if wanted.features or image else found["text"]
    features = tuple(wanted.features or ())
    if not (text or image or features):
        taken = {*found.values(), by}
        features = tuple(
            c for c in names if c not in taken and _is_feature(frame[c].head(SAMPLED), c)
        )
    if not (text or image or features):
        raise DataError(
            f"{where} has no text and no numbers to learn from: give stream.text or "
            f"stream.features; {listed(names)}"
        )
    split = found.get("split")
    if split and not given["split"] and set(_words(frame[split])) - PART_OF.keys():
        split = None  # it says something else
    others = {r: c for r in ("task", "time") if (c := found[r]) and (given[r] or by == r)}
    if by is not None and by not in (*found, "source"):  # which is of several paths
        if by not in names:
            raise DataError(f"stream.by={by}: {where} has none; {listed(names)}")
        others[by] = by
    return Columns(label, text, features, split, others)


def _named(columns: Sequence[str], role: str, given: str | None, where: str) -> str | None:
    """Return the given column, or the one with a usual name of its role; None for none."""
    if given is not None:
        if given not in columns:
            raise DataError(f"stream.{role}={given}: {where} has none; {listed(columns)}")
        return given
    usual = USUAL[role]
    found = [c for c in columns if c.strip().casefold() in usual]
    found.sort(key=lambda c: usual.index(c.strip().casefold()))
    if len(found) > 1 and role in ("label", "text"):
        raise DataError(
            f"{where}: {' or '.join(found)} may be the {role}; give one, stream.{role}={found[0]}"
        )
    return found[0] if found else None


def _words(series: pd.Series) -> list[str]:
    return [str(v).strip().casefold() for v in series.tolist()]


def _is_feature(series: pd.Series, name: str) -> bool:
    """Return whether most values are numbers, or lists of them; what numbers the rows is none."""
    import pandas as pd

    if name.strip().casefold() in NUMBERED or pd.api.types.is_bool_dtype(series.dtype):
        return False
    if isinstance(series.iloc[0], (list, np.ndarray)):
        return True
    present = series.notna() & (series.astype(object) != "")
    return bool(
        np.isfinite(_as_floats(series[present])).mean() > 0.5
    )  # marks such as ? are refused


def _as_floats(series: pd.Series) -> np.ndarray:
    """Return values as numbers, (n,) float64; nan for what is none."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return np.full(len(series), np.nan)
    if not pd.api.types.is_numeric_dtype(series.dtype):
        series = pd.to_numeric(series.astype(object), errors="coerce")
    return np.asarray(series.to_numpy(np.float64, na_value=np.nan))


def rows_of(frame: pd.DataFrame, columns: Columns, where: str) -> Iterator[tuple[Part, Rows]]:
    """Yield the rows of the parts of a table; of "train" alone without a column of splits.

    Raises:
        DataError: a column is missing, or holds a value that cannot be used; it says in which row.
    """
    labels, others = values_of(frame, columns, where)
    if columns.text:
        x = _array(texts_of(frame[columns.text], columns.text, where))
    else:
        x = numbers_of(frame, columns.features, where)
    parts = _array(_parts(frame, columns.split, where))
    for part in WORDS:
        chosen = parts == part
        if chosen.any():
            shared = {name: values[chosen].tolist() for name, values in others.items()}
            inputs = x[chosen].tolist() if columns.text else x[chosen]
            yield part, Rows(inputs, labels[chosen].tolist(), shared)


def values_of(
    frame: pd.DataFrame, columns: Columns, where: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the label of each row, (n,), and the values that rows are shared out by, each (n,).

    Raises:
        DataError: as for :func:`rows_of`.
    """
    needed = [columns.label, columns.text, columns.split, *columns.features]
    for column in filter(None, [*needed, *columns.others.values()]):
        if column not in frame.columns:
            raise DataError(f"{where} has no column {column!r}; {listed(list(frame.columns))}")
    labels = _array(names_of(frame[columns.label], columns.label, where))
    others = {
        name: _array(_ordered(frame[column], column, where))
        for name, column in columns.others.items()
    }
    return labels, others


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, dtype=object)


def _parts(frame: pd.DataFrame, split: str | None, where: str) -> list[Part]:
    if split is None:
        return ["train"] * len(frame)
    values = _words(frame[split])
    for row, value in enumerate(values, 1):
        if value not in PART_OF:
            raise DataError(
                f"{where}, row {row}: {split}={value!r:.40}; give train, validation or test, or "
                "another column, stream.split=COLUMN"
            )
    return [PART_OF[value] for value in values]


def _ordered(series: pd.Series, column: str, where: str) -> list[Any]:
    """Return values that rows are shared out by: numbers, dates as ISO 8601 in UTC, or names."""
    import pandas as pd

    numbers = _as_floats(series)
    if np.isfinite(numbers).all():
        return [int(v) if v == int(v) else float(v) for v in numbers.tolist()]
    try:
        times = pd.to_datetime(series.astype(object), format="ISO8601", utc=True)
    except (ValueError, TypeError):
        return names_of(series, column, where)
    _refuse_missing(times.isna().to_numpy(), column, where)
    form = "%Y-%m-%d" if (times == times.dt.normalize()).all() else "%Y-%m-%dT%H:%M:%S"
    return [str(v) for v in times.dt.strftime(form)]


def listed(columns: Sequence[str]) -> str:
    """Return the columns of a table in a few words."""
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    return f"its columns are {', '.join(c[:30] for c in columns[:12])}{more}"


def names_of(series: pd.Series, column: str, where: str) -> list[str]:
    """Return the values of a column as names: whole numbers and true or false as they are written.

    Raises:
        DataError: a value is missing, or is no name.
    """
    values = series.tolist()
    blank = series.isna().to_numpy() | np.array([isinstance(v, str) and not v for v in values])
    _refuse_missing(blank, column, where)
    for row, value in enumerate(values, 1):
        if isinstance(value, (list, dict)) or (isinstance(value, float) and value % 1):
            raise DataError(
                f"{where}, row {row}: {column}={value!r:.40} names no class; give a column of "
                "names or whole numbers"
            )
    return [str(int(v)) if isinstance(v, float) else str(v) for v in values]


def texts_of(series: pd.Series, column: str, where: str) -> list[str]:
    """Return the values of a column as texts; an empty text is one as well.

    Raises:
        DataError: a value is missing, or is no text.
    """
    values = series.tolist()
    _refuse_missing(series.isna().to_numpy(), column, where)
    for row, value in enumerate(values, 1):
        if isinstance(value, (list, dict, bytes)):
            raise DataError(f"{where}, row {row}: {column}={value!r:.40} is no text")
    return [str(v) for v in values]


def numbers_of(frame: pd.DataFrame, columns: Sequence[str], where: str) -> np.ndarray:
    """Return columns of numbers, or of lists of numbers, side by side, (n, D) float32.

    Raises:
        DataError: a value is missing or no finite number, or lists differ in length.
    """
    return np.concatenate([_numbers(frame[c], c, where) for c in columns], axis=1)


def _numbers(series: pd.Series, column: str, where: str) -> np.ndarray:
    if isinstance(first := series.iloc[0], (list, np.ndarray)):
        try:
            block = np.array(series.tolist(), dtype=np.float32).reshape(len(series), len(first))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: {column} holds lists that are not all of {len(first)} numbers"
            ) from error
    else:
        with np.errstate(over="ignore"):  # too large for float32: refused below
            block = _as_floats(series).astype(np.float32)[:, None]
    bad = ~np.isfinite(block).all(1)
    if bad.any():
        row = int(bad.argmax())
        value = series.iloc[row]
        given = "nothing" if value is None or value == "" else f"{value!r:.40}"
        raise DataError(
            f"{where}, row {row + 1}: {column} is {given}, no finite number "
            f"({int(bad.sum())} such rows); fill them in, leave them out, or give other features"
        )
    return block


def _refuse_missing(missing: np.ndarray, column: str, where: str) -> None:
    if missing.any():
        raise DataError(
            f"{where}, row {int(missing.argmax()) + 1}: {column} is missing "
            f"({int(missing.sum())} such rows); fill these in, or leave the rows out"
        )
