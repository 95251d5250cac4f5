"""The registry of metrics: each has one name, one source and one direction.

Results, reports, W&B, tuning and ``docs/metrics.md`` read it. A metric of your own is a function of
the accuracy matrix that :func:`metric` decorates, as in ``examples/metric.py``. Processes that do
not import its module find it through the entry-point group ``cl_platform.metrics``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from cl_platform.config.registry import load, plugins
from cl_platform.errors import BadInput
from cl_platform.metrics.bounds import AMOUNT, BOUNDS, Bounds

Direction = Literal["more", "less", "none"]
Input = Literal[
    "matrix",
    "chance",
    "held_out",
    "references",
    "calibration",
    "probes",
    "curve",
    "curves",
    "states",
    "predictions",
    "cost",
]
Columns = Literal["trained", "all"]
Function = TypeVar("Function", bound=Callable[..., float])


@dataclass(frozen=True)
class Metric:
    """A number that describes a run.

    Args:
        name: in results; letters, digits, underscores and dots.
        title: its name in tables and pictures.
        function: computes it from its input; None for costs, which the engine measures.
        direction: which is better; ``none`` where neither is, or where nobody has said so.
        unit: of its values: ``fraction`` (shown in %), ``s``, ``FLOP``, ``B`` or any other text.
        source: who defined it.
        computed_from: ``matrix`` alone, the same where it is defined by ``chance`` (left out of
            results where it is nan) or where columns are ``held_out``, the matrix and
            ``references``, the ``predictions`` for all test samples
            (:class:`cl_platform.core.predictions.Predictions`), what is measured of ``states``, a
            value per row, or something else.
        columns: of the matrix, or of the predictions, that it is given: those ``trained``, or
            ``all``, the held-out ones included.
        bounds: least and most that it can be, which intervals are kept within; None where it has
            none, or where nobody has said so.
    """

    name: str
    title: str
    function: Callable[..., float] | None = None
    direction: Direction = "none"
    unit: str = ""
    source: str = ""
    computed_from: Input = "matrix"
    columns: Columns = "trained"
    bounds: Bounds | None = None

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is, 0 if neither."""
        return {"more": 1, "less": -1, "none": 0}[self.direction]

    @property
    def masks(self) -> Literal["every", "own", "none"]:
        """The masks that it is computed under: every one, the scenario's own, or none."""
        if self.computed_from in ("matrix", "chance", "held_out", "references"):
            return "every"
        return "none" if self.computed_from in ("cost", "states") else "own"

    @property
    def meaning(self) -> str:
        """The first paragraph of the function's docstring without its verb; empty without any."""
        doc = (self.function.__doc__ if self.function else None) or ""
        text = " ".join(doc.split("\n\n")[0].split()).removeprefix("Return ").removeprefix("the ")
        return text[:1].upper() + text[1:]

    @property
    def is_builtin(self) -> bool:
        return getattr(self.function, "__module__", "cl_platform.").startswith("cl_platform.")


_COSTS = {
    "seconds": ("time", "s"),
    "train_seconds": ("training", "s"),
    "eval_seconds": ("evaluation", "s"),
    "steps": ("steps", ""),
    "samples": ("samples", ""),
    "flops": ("compute", "FLOP"),
    "peak_memory_bytes": ("peak memory", "B"),
    "energy_joules": ("energy", "J"),
    "stored_bytes": ("state", "B"),
    "memory_bytes": ("memory beside the model", "B"),
    "parameters": ("all parameters", "parameters"),
    "trainable_parameters": ("parameters", "parameters"),
}
_METRICS = {
    f"cost.{name}": Metric(
        f"cost.{name}", title, direction="less", unit=unit, computed_from="cost", bounds=AMOUNT
    )
    for name, (title, unit) in _COSTS.items()
}


def metric(
    name: str = "",
    *,
    title: str = "",
    direction: Direction = "none",
    unit: str = "fraction",
    source: str = "",
    computed_from: Input = "matrix",
    columns: Columns = "trained",
    bounds: Bounds | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function as a metric, and return it as it is.

    Args:
        name: the function's own name unless given.
        title: the name in words unless given.
        direction, unit, source, computed_from, columns, bounds: see :class:`Metric`.

    Raises:
        BadInput: another function has this name, or the arguments are malformed.
    """

    def register(function: Function) -> Function:
        if not inspect.isfunction(function):
            raise BadInput(f"metric {name!r} is {f'{function!r:.60}'}: give a function")
        key = name or function.__name__
        if not re.fullmatch(r"[\w.]+", key):
            raise BadInput(f"metric {key!r}: give a name of letters, digits, underscores and dots")
        if direction not in get_args(Direction):
            raise BadInput(f"metric {key!r}: direction={direction!r}; give more, less or none")
        if computed_from not in get_args(Input):
            inputs = ", ".join(get_args(Input))
            raise BadInput(f"metric {key!r}: computed_from={computed_from!r}; give one of {inputs}")
        if bounds is not None and not _are_bounds(bounds):
            raise BadInput(f"metric {key!r}: bounds={bounds!r:.60}; give (least, most), say (0, 1)")
        known = _METRICS.get(key)
        if known is not None and not _is_same(known.function, function):
            raise BadInput(
                f"metric {key!r} of {function.__module__} is registered by "
                f"{getattr(known.function, '__module__', __name__)} already; give it another name"
            )
        words = title or key.replace("_", " ")
        fields = (direction, unit, source, computed_from, columns, bounds or BOUNDS.get(key))
        _METRICS[key] = Metric(key, words, function, *fields)
        return function

    if not isinstance(name, str):
        raise BadInput("@metric without parentheses: give @metric() or @metric(direction=...)")
    return register


def _are_bounds(given: Any) -> bool:
    try:
        low, high = given
        return bool(low < high)
    except (TypeError, ValueError):
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Return whether both are one function that was defined again, by a notebook or a reload."""
    return one is not None and (
        (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
        or (one.__code__.co_filename, one.__qualname__)
        == (other.__code__.co_filename, other.__qualname__)
    )


def metrics(computed_from: Input | None = None) -> dict[str, Metric]:
    """Return the registered metrics by name, all or those with one input.

    Raises:
        BadInput: a metric of an installed package cannot be imported, or its name is in use.
    """
    _load_entry_points()
    return {name: m for name, m in _METRICS.items() if computed_from in (None, m.computed_from)}


@cache
def _load_entry_points() -> None:
    """Import the metrics of installed packages; an undecorated function takes its entry's name."""
    for name in plugins("metric"):
        function = load("metric", name)
        if all(m.function is not function for m in _METRICS.values()):
            metric(name)(function)


def find_metric(name: str) -> Metric:
    """Return the metric of this name; one that is not registered has no direction and no unit."""
    return metrics().get(name) or Metric(name, name.replace("_", " "))


def registered_functions() -> dict[str, Callable[..., float]]:
    """Return the metrics' functions by name: the code that a run's id covers besides the kernel."""
    return {name: m.function for name, m in metrics().items() if m.function is not None}
