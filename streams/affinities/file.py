"""An affinity that is written down: measured before, or known."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform import Affinity, Stream
from cl_platform.errors import BadInput, one_line

FORM = (
    "give JSON with experiences and matrix as clp affinity --out writes it, or CSV with the names "
    "of the targets in the first line and of the source in front of each row"
)


class File(Affinity):
    """The matrix in a file: rows are sources, columns targets, by the names of experiences.

    Args:
        path: JSON as ``clp affinity --out`` writes it, or CSV with names in its first line and
            column.
    """

    path: str

    def reads(self, stream: Stream) -> Any:
        return self._text()

    def __call__(self, stream: Stream, rng: np.random.Generator) -> np.ndarray:
        names = [e.name for e in stream.experiences]
        found, matrix = self.read()
        if len({*names}) < len(names) and found != names:
            raise BadInput(
                f"affinity file {self.path}: experiences of stream {stream.name!r:.60} have equal "
                "names; give the matrix in the order of the stream"
            )
        if sorted(found) != sorted(names):
            missing, unknown = sorted({*names} - {*found}), sorted({*found} - {*names})
            what = f"{missing[0]!r:.60} is missing" if missing else "a name is there twice"
            raise BadInput(
                f"affinity file {self.path} is of other experiences than stream "
                f"{stream.name!r:.60}: " + (f"{unknown[0]!r:.60} is unknown" if unknown else what)
            )
        places = range(len(names)) if found == names else [found.index(name) for name in names]
        return matrix[np.ix_(places, places)]

    def read(self) -> tuple[list[str], np.ndarray]:
        """Return the names in the file and its matrix, with nan where there is no number.

        Raises:
            BadInput: it cannot be read, or holds no square matrix.
        """
        text = self._text()
        try:
            names, rows = _of_json(text) if text.lstrip().startswith("{") else _of_csv(text)
            matrix = np.array(rows, dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {one_line(error, 100)}"
            raise BadInput(
                f"affinity file {self.path} holds no matrix ({reason}); {FORM}"
            ) from None
        if matrix.shape != (len(names), len(names)):
            raise BadInput(
                f"affinity file {self.path} holds {len(names)} names and a matrix of shape "
                f"{matrix.shape}; {FORM}"
            )
        return names, matrix

    def _text(self) -> str:
        try:
            return Path(self.path).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"affinity file {self.path} cannot be read: {one_line(error)}") from None


def _of_json(text: str) -> tuple[list[str], Any]:
    document = json.loads(text)
    return [str(name) for name in document["experiences"]], document["matrix"]


def _of_csv(text: str) -> tuple[list[str], Any]:
    head, *rows = [row for row in csv.reader(text.splitlines()) if row]
    targets, sources = head[1:], [row[0] for row in rows]
    places = [sources.index(name) for name in targets]  # the rows may stand in another order
    if sorted(sources) != sorted(targets):
        raise ValueError("rows and columns have other names")
    return targets, [_numbers(rows[i][1:]) for i in places]


def _numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers of a row; an empty cell, as on the diagonal, is nan."""
    return [float(cell) if cell.strip() else float("nan") for cell in cells]
