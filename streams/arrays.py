"""Streams of arrays, in ``.npz``, ``.npy`` and ``.pt`` files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cl_platform.errors import DataError
from streams.data.array_files import names_in, stored_arrays
from streams.data.array_rows import Layout, rows_of
from streams.data.own import Part, Rows, Source
from streams.doors import door


@door
def arrays(
    path: str,
    *,
    x: str | None = None,
    y: str | None = None,
    x_test: str | None = None,
    y_test: str | None = None,
    x_validation: str | None = None,
    y_validation: str | None = None,
    class_names: Sequence[str] | None = None,
    layout: Layout = "auto",
) -> Source:
    """Read arrays of inputs and labels from an ``.npz``, ``.npy`` or ``.pt`` file.

    Inputs are images (n, C, H, W), (n, H, W, C) or (n, H, W), or numbers (n, ...); labels (n,) are
    numbers or names. Further arrays of one value for each row are columns for `by`: ``task``, with
    ``task_test``.

    Args:
        path: the file. Of several ``.npy`` files in a folder, that of the inputs; the others have
            their file names, without the ending, as names.
        x, y, x_test, y_test, x_validation, y_validation: names of the arrays. None finds names
            such as ``x`` and ``y``, ``x_train`` and ``x_test``, ``train_images`` and
            ``train_labels``.
        class_names: of the labels 0, 1, ...; None takes an array ``class_names`` in the file, or
            the labels themselves.
        layout: where inputs (n, ., ., .) have their channels; ``auto`` looks for 1, 3 or 4 of them.

    The other arguments are those of :func:`streams.doors.opened` and
    :func:`streams.sharing.share_out`.

    Raises:
        DataError: the file cannot be read, or is not of these types.
        BadInput: it is not clear which arrays to take, or they do not fit.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"there is no file {file}: give an .npz, .npy or .pt file")
    given = {
        **{"x": x, "y": y, "x_test": x_test, "y_test": y_test},
        **{"x_validation": x_validation, "y_validation": y_validation},
    }
    if file.suffix == ".npy" and x is None:
        given["x"] = file.stem

    def read() -> Iterator[tuple[Part, Rows]]:
        stored = stored_arrays(file)
        parts, columns, listed = names_in(stored, given, file.name)
        names = class_names or (stored[listed].tolist() if listed else None)
        for part, (inputs, labels) in parts.items():
            of_part = {name: stored[key] for name, key in columns.get(part, {}).items()}
            for rows in rows_of(stored[inputs], stored[labels], names, of_part, layout):
                yield part, rows

    files = sorted(file.parent.glob("*.npy")) if file.suffix == ".npy" else [file]
    reading = {"path": str(file.absolute()), "names": class_names, "layout": layout, **given}
    return Source(file.stem, read, files, reading)
