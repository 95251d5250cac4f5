"""Rows that come block by block, collected in memory or in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from cl_platform.errors import BadInput
from streams.data.datasets import arrays_home, resident_bytes


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a data set as a source gives them, before their classes are numbered.

    Args:
        x: images (n, C, H, W) uint8, numbers (n, ...) float32 or whole, or n texts.
        labels: the name of each row's class, (n,).
        columns: further values by name, each (n,) texts or numbers: what rows are shared out by.
    """

    x: np.ndarray | Sequence[str]
    labels: Sequence[str]
    columns: Mapping[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)


class Inputs:
    """Arrays (n, ...) of one shape and type, appended to each other.

    Args:
        path: of the ``.npy`` file that they become. None keeps them in memory, or, above
            ``$CLP_RESIDENT_BYTES``, in a file without a name, which is gone with the process.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows = 0
        self._blocks: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    @property
    def in_file(self) -> bool:
        """Whether the rows lie in a file."""
        return self._file is not None

    def close(self) -> None:
        """Close the file; a mapping of it remains."""
        if self._file:
            self._file.close()

    def add(self, block: np.ndarray) -> None:
        """Append rows.

        Raises:
            BadInput: their shape or type is not that of those before.
        """
        block = _plain(block)
        if not self.rows:
            self._shape, self._dtype = block.shape[1:], block.dtype
            if self.path:
                self._file = self.path.open("wb+")
                self._write_header()
        if (block.shape[1:], block.dtype) != (self._shape, self._dtype):
            raise BadInput(
                f"row {self.rows} has shape {block.shape[1:]} ({block.dtype}), those before "
                f"{self._shape} ({self._dtype}): give all rows the same shape and type"
            )
        self.rows += len(block)
        if self._file:
            self._file.write(np.ascontiguousarray(block).data)
            return
        self._blocks.append(block)
        if self.rows * self._dtype.itemsize * math.prod(self._shape) > resident_bytes():
            self._spill()

    def array(self) -> np.ndarray:
        """Return all rows, (n, ...): a copy, or mapped from the file, which is then complete."""
        if not self._file:
            return np.concatenate(self._blocks)
        self._write_header()
        self._file.flush()
        head = self._file.tell()
        rows = np.memmap(self._file, self._dtype, "c", head, (self.rows, *self._shape))
        self.close()
        return rows

    def _spill(self) -> None:
        arrays_home().mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=arrays_home())  # noqa: SIM115  (it is mapped)
        self._write_header()
        for block in self._blocks:
            self._file.write(np.ascontiguousarray(block).data)
        self._blocks.clear()

    def _write_header(self) -> None:
        """Write the head of an npy file, whose length does not depend on the number of rows."""
        if self._file:
            self._file.seek(0)
            head = {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._shape),
            }
            np.lib.format.write_array_header_1_0(self._file, head)


class Collected:
    """The rows of one part of a data set."""

    def __init__(self, path: Path | None) -> None:
        self.inputs = Inputs(path)
        self.texts: list[str] = []
        self.labels: list[str] = []
        self._columns: dict[str, list[Any]] = {}

    def add(self, rows: Rows) -> None:
        """Append rows.

        Raises:
            BadInput: they do not fit together, or to those before.
        """
        n, columns = len(rows.labels), dict(rows.columns)
        lengths = {"inputs": len(rows.x), **{f"column {c}": len(v) for c, v in columns.items()}}
        for what, length in lengths.items():
            if length != n:
                raise BadInput(f"{what}: {length} values for {n} labels; give one for each row")
        if not n:
            return
        if self.labels and columns.keys() != self._columns.keys():
            both = f"{sorted(columns)} and {sorted(self._columns)}"
            raise BadInput(f"some rows have columns {both:.200}: give all rows the same ones")
        if isinstance(rows.x, np.ndarray):
            self.inputs.add(rows.x)
        else:
            self.texts += rows.x
        self.labels += map(str, rows.labels)
        for name, values in columns.items():
            self._columns.setdefault(str(name), []).extend(values)
        if self.texts and self.inputs.rows:
            raise BadInput("some rows are texts and some are numbers: give one kind")

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns as arrays of numbers or text, (n,)."""
        return {name: _column(values) for name, values in self._columns.items()}


def _plain(block: np.ndarray) -> np.ndarray:
    """Return inputs in the byte order of this machine and in a type that torch and models take."""
    kind = block.dtype.kind
    if kind not in "biuf" or block.ndim < 2:
        raise BadInput(
            f"inputs of shape {block.shape} ({block.dtype}): expected numbers, (n, ...) with one "
            "row for each label"
        )
    dtype = block.dtype.newbyteorder("=")
    if kind == "b":
        dtype = np.dtype(np.uint8)
    if dtype == np.float64:
        dtype = np.dtype(np.float32)
    return block.astype(dtype, copy=False)


def _column(values: Sequence[Any]) -> np.ndarray:
    array = np.asarray(values) if len({type(v) for v in values}) == 1 else None
    if array is not None and array.dtype.kind in "iufU" and array.ndim == 1:
        return array
    return np.array([str(value) for value in values])
