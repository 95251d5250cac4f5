"""What a network has kept of its ability to learn, at the end of a run.

Each is a value per row of the matrix, which the engine measures where a run asks for it, see
:mod:`cl_platform.engine.measures`; the metric is that of the last row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cl_platform.metrics.registry import metric

Values = Sequence[float | None]
"""Of each row of the matrix; None for what the network does not have."""


@metric(
    title="active units",
    direction="more",
    source="code of Ma et al. 2024 (adaptive replay ratio), FAU",
    computed_from="states",
)
def active_units(values: Values) -> float:
    """Return the share of outputs of activations that are positive, after the last experience."""
    return _last(values)


@metric(
    title="dead units",
    direction="less",
    source="Dohare et al. 2024",
    computed_from="states",
)
def dead_units(values: Values) -> float:
    """Return the share of units whose activation is positive for no sample, after the last one."""
    return _last(values)


@metric(
    title="effective rank",
    direction="more",
    unit="",
    source="Roy & Vetterli 2007",
    computed_from="states",
)
def effective_rank(values: Values) -> float:
    """Return exp of the entropy of the features' normalised singular values, after the last one."""
    return _last(values)


@metric(
    title="stable rank",
    direction="more",
    unit="",
    source="Rudelson & Vershynin 2007",
    computed_from="states",
)
def stable_rank(values: Values) -> float:
    """Return the features' squared Frobenius norm over their largest squared singular value."""
    return _last(values)


@metric(title="norm of the weights", direction="less", unit="", computed_from="states")
def weight_norm(values: Values) -> float:
    """Return the Euclidean norm of all that is trained, after the last experience."""
    return _last(values)


@metric(
    title="trainability",
    direction="more",
    source="Lyle et al. 2023, probe tasks",
    computed_from="states",
)
def trainability(values: Values) -> float:
    """Return the accuracy that a copy of the last model reaches on random labels in some steps."""
    return _last(values)


def _last(values: Values) -> float:
    return math.nan if values[-1] is None else values[-1]
