"""Whether the numbers of a run come out again: trained anew from its record, and compared."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.core.matrix import OWN_MASK
from cl_platform.deploy.trained import changed_versions, planned_again
from cl_platform.engine.execution import execute
from cl_platform.engine.optimization import device_fault
from cl_platform.errors import BadInput
from cl_platform.results.load import DEFAULT_OUT, load_run
from cl_platform.results.result import Result

DATA = "data"
NOT_OF_CODE = (DATA, "cl_platform", "python")  # the number of a release decides no bit


@dataclass(frozen=True)
class Verification:
    """What came of training a run again.

    Args:
        run_id: of the record.
        code: what took part in the code and is now another, as (then, now); empty if all is equal.
        data: the digest of the data then and now, if they differ.
        cells: number of accuracies in the record, under all masks.
        differing: how many of them came out with other bits.
        largest: the largest difference, in points of accuracy in %.
        accuracy: the average accuracy of the record and of the run made now.
    """

    run_id: str
    code: dict[str, tuple[str, str]]
    data: tuple[str, str] | None
    cells: int
    differing: int
    largest: float
    accuracy: tuple[float, float]
    made: Result = field(repr=False)

    @property
    def equal(self) -> bool:
        """Whether the data are the same and every accuracy has the same bits."""
        return self.data is None and not self.differing

    def lines(self) -> list[str]:
        """Return one line each on the code, the data and the matrix."""
        code = ", ".join(f"{name} {was} (now {now})" for name, (was, now) in self.code.items())
        data = f"differ: {self.data[0]} (now {self.data[1]})" if self.data else "the same"
        was, now = (f"{100 * value:.2f} %" for value in self.accuracy)
        matrix = f"equal, all {self.cells} accuracies bit for bit (average accuracy {was})"
        if self.differing:
            matrix = (
                f"not equal: {self.differing} of {self.cells} accuracies differ, by "
                f"{self.largest:.2f} points at most (average accuracy {was}, now {now})"
            )
        differs = code if len(code) < 300 else f"{code[:297]}..."
        return [
            f"code    {f'differs: {differs}' if code else 'the same'}",
            f"data    {data}",
            f"matrix  {matrix}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {
            "run_id": self.run_id,
            "equal": self.equal,
            "code": {name: list(pair) for name, pair in self.code.items()},
            "data": list(self.data) if self.data else None,
            "cells": self.cells,
            "differing": self.differing,
            "largest_difference": self.largest,
            "average_accuracy": list(self.accuracy),
        }


def verify(run: str | Path | Result, out: str | Path = DEFAULT_OUT) -> Verification:
    """Train a run again from its record, in a folder that is removed, and compare the two.

    The same bits are promised for the same code, data, machine, device and number of threads.

    Args:
        run: its folder, its id or the first characters of it, or a result.
        out: the folder of an id, as for :func:`cl_platform.load_run`.

    Raises:
        BadInput: there is no such run, objects took part that no record holds, or this
            machine lacks its device.
        RunFailed: it cannot be trained now.
    """
    result = run if isinstance(run, Result) else load_run(run, out)
    plan = planned_again(result, result.objects)
    if faults := device_fault(plan.config.device):
        raise BadInput(f"run {result.run_id} was made on {plan.config.device}: {faults[0]}")
    with tempfile.TemporaryDirectory(prefix="clp-verify-") as folder:
        made = execute(plan, folder, keep="none")
    changed = changed_versions(result, plan)
    cells, differing, largest = _compared(result, made)
    return Verification(
        run_id=result.run_id,
        code={name: pair for name, pair in changed.items() if name not in NOT_OF_CODE},
        data=changed.get(DATA),
        cells=cells,
        differing=differing,
        largest=largest,
        accuracy=(result.metrics["average_accuracy"], made.metrics["average_accuracy"]),
        made=made,
    )


def _compared(then: Result, now: Result) -> tuple[int, int, float]:
    """Return the number of accuracies, how many differ, and by how many points at most."""
    own = OWN_MASK[then.scenario]
    if own not in now.matrices or then.matrix.values.shape != now.matrix.values.shape:
        return then.matrix.values.size, then.matrix.values.size, 100.0
    pairs = [(then.matrices[m].values, now.matrices[m].values) for m in then.matrices]
    pairs += [(then.validation[m].values, now.validation[m].values) for m in then.validation]
    before, after = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    different = before != after
    largest = float(np.abs(before - after).max(initial=0.0))
    return before.size, int(different.sum()), 100 * largest
