"""Two runs, compared sample by sample."""

from __future__ import annotations

from cl_platform.metrics.prediction_metrics import agreement as of_predictions
from cl_platform.results.result import Result


def agreement(one: Result, other: Result, row: int = -1) -> float:
    """Return the share of test samples for which two runs predict the same class, from 0 to 1.

    The runs may differ in all but their test data, and in the order of those as well.

    Args:
        row: of their matrices, the last unless given.

    Raises:
        BadInput: they were tested on other experiences, or predictions were not kept.
        StorageError: predictions are not there any more.
    """
    return of_predictions(one.predictions(), other.predictions(), row)
