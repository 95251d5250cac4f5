"""Streams of Hugging Face data sets: from the hub, from a saved folder, or as Python has them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform import Stream
from cl_platform.config.signatures import call, checked
from cl_platform.errors import BadInput, ClpError, DataError, one_line
from cl_platform.models.hub import ask_for_dataset
from streams.data.columns import (
    PART_OF,
    SAMPLED,
    Columns,
    Wanted,
    columns_of,
    rows_of,
    values_of,
)
from streams.data.own import Part, Rows, Source
from streams.data.pictures import Channels, Form, Size, Unreadable, decode_all
from streams.data.text_formats import encoder, encoder_key
from streams.doors import door
from streams.text import Length

if TYPE_CHECKING:
    import pandas as pd

MEDIA = ("Image", "Audio", "Video", "Pdf", "Nifti")  # types of columns that hold whole files


@door
def hub(
    path: str,
    *,
    subset: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    text: str | None = None,
    features: str | Sequence[str] | None = None,
    label: str | None = None,
    task: str | None = None,
    time: str | None = None,
    by: str | None = None,
    size: Size | None = None,
    crop: bool = True,
    channels: Channels = "auto",
    background: str = "white",
    unreadable: Unreadable = "refuse",
    tokenizer: str | None = None,
    tokens: Length = 64,
) -> Source:
    """Read a Hugging Face data set, by its name on the hub or from the folder it was saved in.

    Its splits named train, validation and test are those parts. Columns that are not given are
    found by their types (images, class labels) or by the usual names of
    :func:`streams.table.table`. A split whose labels are all -1, as where they are secret, is left
    out.

    Args:
        path: a name on the hub, which needs a network, or a folder written by ``save_to_disk``.
        subset: the name of a configuration, where there are several.
        revision: a branch, tag or commit of its repository.
        image: the column of images; see `size`.
        text, features, label, task, time, by: columns, as for :func:`streams.table.table`.
        size, crop, channels, background, unreadable: as for :func:`streams.folder.folder`.
        tokenizer, tokens: as for :func:`streams.text.split_text`.

    The other arguments are those of :func:`streams.doors.opened` and
    :func:`streams.sharing.share_out`.

    Raises:
        DataError: there is no such data set, or it or `datasets` cannot be read.
        BadInput: it is not clear what to learn from.
    """
    given = {"label": label, "text": text, "task": task, "time": time}
    wanted = Wanted(given, [features] if isinstance(features, str) else features, by)
    form = Form(size, crop, channels, background)
    found = _find(path, subset, revision)
    notes: list[str] = []

    def read() -> Iterator[tuple[Part, Rows]]:
        with _explained(found.name):
            parts = _parts(found.load(), label, found.name, notes)
            column = _image(parts["train"], image, wanted)
            if column is None:
                yield from _tables(parts, wanted, found.name)
            else:
                yield from _pictures(parts, column, wanted, found.name, decode)

    decode = partial(decode_all, form=form, unreadable=unreadable, notes=notes)
    key = {
        "place": found.place,
        "columns": [asdict(wanted), image],
        "images": [asdict(form), unreadable],
        "text": encoder_key(tokenizer, tokens),
    }
    return Source(found.name, read, found.files, key, encoder(tokenizer, tokens), notes)


def from_hub(dataset: Any, **given: Any) -> Stream:
    """Make a stream of a ``datasets.Dataset``, or a ``DatasetDict`` of the parts, in memory.

    Args:
        given: parameters of the stream ``hub``, such as ``label`` or ``experiences``.

    Raises:
        ConfigError: one of them is wrong; one line each.
        DataError, BadInput: as for :func:`hub`.
    """
    values = checked("stream", hub, {**given, "path": ""})
    stream: Stream = call("stream", hub, values | {"path": dataset})
    return stream


@dataclass(frozen=True)
class _Found:
    """A data set, and what its arrays are kept under: files, and where it came from."""

    name: str
    load: Callable[[], Any]
    files: Sequence[Path] | None = None
    place: Sequence[str | None] = ()


def _find(path: Any, subset: str | None, revision: str | None) -> _Found:
    if not isinstance(path, str):  # an object, from Python
        info = getattr(path, "info", None)
        return _Found(getattr(info, "dataset_name", None) or "hub", lambda: path)
    folder = Path(path).expanduser()
    if folder.is_dir():  # the library is not needed where the arrays have been made
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return _Found(
            folder.resolve().name, partial(_saved, folder), files, [str(folder.absolute())]
        )
    with _explained(path):
        loaded = _downloaded(path, subset, revision)
    files = [Path(f["filename"]) for data in loaded.values() for f in data.cache_files]
    return _Found(path.rpartition("/")[2], lambda: loaded, files, [path, subset, revision])


def _saved(folder: Path) -> Any:
    import datasets

    return datasets.load_from_disk(str(folder))


def _downloaded(name: str, subset: str | None, revision: str | None) -> Any:
    import datasets

    ask_for_dataset(name, revision)
    return datasets.load_dataset(name, subset, revision=revision)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever the library raises into a DataError of one line."""
    try:
        yield
    except ClpError:
        raise
    except ImportError as error:
        raise DataError(f"data set {name!r} needs {error.name}; install the extra 'hub'") from error
    except Exception as error:  # no network, unknown names, damaged files
        raise DataError(
            f"data set {name!r} is not available ({one_line(error, 160)}); give a name on the hub, "
            "with a network or HF_HUB_OFFLINE=1 if it was downloaded before, or a folder written "
            "by save_to_disk"
        ) from error


def _parts(loaded: Any, label: str | None, name: str, notes: list[str]) -> dict[Part, Any]:
    """Return the data set of each part; those without labels, or of other names, are left out."""
    if not isinstance(loaded, Mapping):
        loaded = {"train": loaded}
    if len(loaded) == 1:  # whatever it is called
        loaded = {"train": next(iter(loaded.values()))}
    found: dict[Part, Any] = {}
    for split, data in loaded.items():
        part = PART_OF.get(str(split).lower())
        if part is None or part in found or _secret(data, label):
            notes.append(f"split {split} left out")
        else:
            found[part] = data
    if "train" not in found:
        raise BadInput(f"{name} has no split for training; its splits are {', '.join(loaded)}")
    return found


def _secret(data: Any, label: str | None) -> bool:
    """Return whether all labels of a split are -1."""
    column = _label(data, label)
    return column in _class_labels(data) and set(data.unique(column)) == {-1}


def _label(data: Any, given: str | None) -> str | None:
    """Return the given label, or the only column of class labels."""
    columns = list(_class_labels(data))
    return columns[0] if given is None and len(columns) == 1 else given


def _class_labels(data: Any) -> dict[str, Any]:
    """Return the columns of class labels, whose values are numbers of names."""
    return {c: f.names for c, f in data.features.items() if hasattr(f, "names")}


def _image(data: Any, given: str | None, wanted: Wanted) -> str | None:
    """Return the column of images; None where there are none, or something else is wanted."""
    images = [c for c, feature in data.features.items() if type(feature).__name__ == MEDIA[0]]
    if given is not None:
        if given not in images:
            known = ", ".join(images) or "none"
            raise BadInput(f"stream.image={given} holds no images; columns of images: {known}")
        return given
    if wanted.features or wanted.given["text"]:
        return None
    if len(images) > 1:
        raise BadInput(
            f"{' or '.join(images)} may be the image; give one, stream.image={images[0]}"
        )
    return images[0] if images else None


def _frame(data: Any) -> pd.DataFrame:
    """Return the columns of a data set but images and sounds, class labels by their names."""
    import pandas as pd

    kept = [c for c, feature in data.features.items() if type(feature).__name__ not in MEDIA]
    table = data.select_columns(kept).with_format("arrow")[:]
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    for column, names in _class_labels(data).items():
        if column in frame:
            of = dict(enumerate(names))  # -1 is none of them
            frame[column] = pd.Series([of.get(c) for c in frame[column].tolist()], dtype=object)
    return frame


def _columns(parts: Mapping[Part, Any], wanted: Wanted, name: str, image: str | None) -> Columns:
    """Return which column is what, the only one of class labels being the label."""
    data = parts["train"]
    label = _label(data, wanted.given["label"])
    some = _frame(data.select(range(min(len(data), SAMPLED))))
    wanted = replace(wanted, given={**wanted.given, "label": label})
    return columns_of(some, wanted, name, image)


def _tables(parts: Mapping[Part, Any], wanted: Wanted, name: str) -> Iterator[tuple[Part, Rows]]:
    columns = _columns(parts, wanted, name, None)
    for part, data in parts.items():
        for _, rows in rows_of(_frame(data), columns, f"{name} ({part})"):
            yield part, rows


def _pictures(
    parts: Mapping[Part, Any], image: str, wanted: Wanted, name: str, decode: Any
) -> Iterator[tuple[Part, Rows]]:
    """Yield rows of images, the parts one after the other."""
    columns = _columns(parts, wanted, name, image)
    found = [values_of(_frame(d), columns, f"{name} ({p})") for p, d in parts.items()]
    labels = np.concatenate([labels for labels, _ in found])
    others = {c: np.concatenate([values[c] for _, values in found]) for c in columns.others}
    part_of = np.concatenate([np.full(len(d), part) for part, d in parts.items()])
    names = [f"image {i} of {name} ({part})" for part, d in parts.items() for i in range(len(d))]
    for places, pixels in decode(_Images(list(parts.values()), image), names):
        rows = np.array(places)
        for part in dict.fromkeys(part_of[rows].tolist()):
            chosen = part_of[rows] == part
            shared = {c: values[rows[chosen]].tolist() for c, values in others.items()}
            yield part, Rows(pixels[chosen], labels[rows[chosen]].tolist(), shared)


class _Images(Sequence[Any]):
    """The images of data sets one after the other, as files or their content; read when asked."""

    def __init__(self, data: Sequence[Any], column: str) -> None:
        from datasets import Image

        self.column = column
        self.data = [
            d.with_format(None).select_columns(column).cast_column(column, Image(decode=False))
            for d in data
        ]
        self.ends = list(accumulate(map(len, data)))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, i: Any) -> Any:
        number = bisect_right(self.ends, i)
        stored = self.data[number][i - self.ends[number]][self.column]  # counted from its end
        return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"])
