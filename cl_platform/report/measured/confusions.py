"""Which classes runs took for which others, for a report's page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from cl_platform.errors import ClpError
from cl_platform.metrics.prediction_metrics import confusion
from cl_platform.results.result import Result

MOST_CLASSES = 100
MOST_CELLS = 400_000  # of all matrices on a page: about a megabyte

Confusion = list[list[int]]


def confusions(results: Sequence[Result]) -> list[dict[int, Confusion]]:
    """Return the confusion matrices of each run by the row of its matrix that they are of.

    Of every row if a page holds as many, else of the last one, and of as many runs as it holds. A
    run has none with more than 100 classes, or where its predictions were not kept.
    """
    sizes = [_cells(result) for result in results]
    kept = [[i for i, address in enumerate(result.kept) if address] for result in results]
    every = sum(size * len(rows) for size, rows in zip(sizes, kept, strict=True)) <= MOST_CELLS
    found: list[dict[int, Confusion]] = []
    left = MOST_CELLS
    for result, size, rows in zip(results, sizes, kept, strict=True):
        chosen = rows if every else rows[-1:]
        fits = 0 < size * len(chosen) <= left
        found.append(_of_rows(result, chosen) if fits else {})
        left -= size * len(found[-1])
    return found


def _cells(result: Result) -> int:
    n = 0 if result.class_accuracy is None else result.class_accuracy.shape[1]
    return n * n if n <= MOST_CLASSES else 0


def _of_rows(result: Result, rows: Sequence[int]) -> dict[int, Confusion]:
    found = {}
    for row in rows:
        with suppress(ClpError):  # the states, and what lies beside them, may be elsewhere
            found[row] = confusion(result.predictions()[row]).tolist()
    return found
