"""All metrics of a run by name, as its result holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_platform.core.matrix import AccuracyMatrix, Mask
from cl_platform.core.predictions import Predictions
from cl_platform.metrics.matrix_metrics import compute_metrics, guarded, of_matrix
from cl_platform.metrics.plasticity import Values
from cl_platform.metrics.registry import Input, Metric, metrics
from cl_platform.metrics.stability_gap import Curves


@dataclass(frozen=True, eq=False)
class Measurements:
    """What the metrics of a run are computed from.

    Args:
        own: the scenario's own mask.
        matrices: by split (``test``, ``validation``) and mask.
        calibration: expected calibration errors; None where they were not measured.
        curve: [samples shown, accuracy]; empty without ``evaluate_every``.
        predictions: for all test samples; None where none are kept.
        probes: accuracies of linear probes in the matrix's form; None without ``probe``.
        curves: of each experience; None without ``evaluate_every``, and where a run has ended.
        states: what was measured of the state of each row, by name.
    """

    own: Mask
    matrices: Mapping[str, Mapping[str, AccuracyMatrix]]
    calibration: AccuracyMatrix | None = None
    curve: Sequence[Sequence[float]] = ()
    predictions: Predictions | None = None
    probes: AccuracyMatrix | None = None
    curves: Curves | None = None
    states: Mapping[str, Values] = field(default_factory=dict)

    def others(self) -> dict[Input, Any]:
        """Return what there is besides matrices, by the input that metrics name."""
        found: dict[Input, Any] = {
            "calibration": self.calibration,
            "curve": self.curve or None,
            "predictions": self.predictions,
        }
        return {kind: given for kind, given in found.items() if given is not None}


def measured(
    found: Measurements,
    only: Metric | None = None,
    value: Callable[[Metric, Any], float] = guarded,
) -> dict[str, float]:
    """Return the metrics of a run by their names there: after split and mask, of which ``test`` and
    the scenario's own go without saying.

    What is undefined is nan, but left out of what is computed from predictions: that depends on
    what was kept of them.

    Args:
        only: the metric to compute; all by default.
        value: computes one.
    """

    def chosen(kind: Input) -> dict[str, Metric]:
        return {n: m for n, m in metrics(kind).items() if only is None or m.name == only.name}

    values: dict[str, float] = {}
    for split, by_mask in found.matrices.items():
        for mask, matrix in by_mask.items():
            prefix = ("" if split == "test" else f"{split}/") + (
                "" if mask == found.own else f"{mask}/"
            )
            wanted = {n: m for n, m in of_matrix(matrix).items() if only in (None, m)}
            found_there = compute_metrics(matrix, wanted, value)
            values |= {prefix + name: v for name, v in found_there.items()}
    for kind, given in found.others().items():
        # A curve has no columns: it is about what was learned so far.
        trained = given if kind == "curve" else given.trained()
        inputs = {"all": given, "trained": trained}
        more = {name: value(m, inputs[m.columns]) for name, m in chosen(kind).items()}
        values |= {k: v for k, v in more.items() if kind != "predictions" or not math.isnan(v)}
    whole: dict[Input, Any] = {"curves": found.curves, "probes": found.probes}
    for kind, given in whole.items():
        if given is not None:
            values |= {name: value(m, given) for name, m in chosen(kind).items()}
    of_states = {name: m for name, m in chosen("states").items() if name in found.states}
    return values | {name: value(m, found.states[name]) for name, m in of_states.items()}
