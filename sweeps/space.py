"""The points of a sweep: every combination of listed values, and draws of the random ones.

The value of an axis is a list (a grid of its items) or one of these forms, which may also stand
inside a listed item: ``strategy: [finetune, {name: er, memory_size: {grid: [100, 200]}}]``.

======================  ============================================================
``{grid: [a, b, c]}``   each of them
``{range: n}``          each of 0..n-1; ``{range: [a, b]}``, a..b-1
``{uniform: [a, b]}``   random, evenly
``{loguniform: [a, b]}``  random, evenly in the logarithm
``{integers: [a, b]}``  random whole numbers, both ends included
``{choice: [a, b]}``    random, one of them
======================  ============================================================
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cl_platform.config.labels import label
from cl_platform.config.run_config import SHORTHANDS, put
from cl_platform.core.rng import seed_for
from cl_platform.errors import ConfigError
from sweeps.spec import MOST_POINTS, SweepSpec

Point = dict[str, Any]
"""The value of each axis, by dotted key."""

GRIDS = ("grid", "range")
RANDOM = ("uniform", "loguniform", "integers", "choice")


@dataclass(frozen=True)
class Random:
    """A value to be drawn; `form` is one of :data:`RANDOM`."""

    form: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.form}({', '.join(map(label, self.arguments))})"

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value; numbers are rounded to six digits, so that reports can show them whole."""
        low, high = self.arguments[0], self.arguments[-1]
        if self.form == "uniform":
            return _rounded(rng.uniform(low, high))
        if self.form == "loguniform":
            return _rounded(math.exp(rng.uniform(math.log(low), math.log(high))))
        if self.form == "integers":
            return int(rng.integers(low, high, endpoint=True))
        return self.arguments[int(rng.integers(len(self.arguments)))]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def points(spec: SweepSpec) -> list[Point]:
    """Return every point of the axes: the grid, times `samples` draws where something is random.

    A draw depends on the seed, the axis and its number only, so that more samples keep the first
    ones. Equal draws are one point.

    Raises:
        ConfigError: an axis is malformed; one line per fault.
    """
    drawn: list[Point] = []
    grid = templates(spec)
    if (number := spec.samples * sum(map(is_random, grid))) > MOST_POINTS:
        raise _too_many(f"axes with samples={spec.samples}", number)
    for point in grid:
        if is_random(point):
            draws = [fill(point, spec.seed, i) for i in range(spec.samples)]
            drawn += {repr(p): p for p in draws}.values()
        else:
            drawn.append(point)
    return drawn


def is_random(point: Point) -> bool:
    """Return whether anything in a point is still to be drawn."""
    return any(map(randoms, point.values()))


def templates(spec: SweepSpec) -> list[Point]:
    """Return the grid; random values are not drawn yet (:class:`Random`)."""
    faults: list[str] = []
    axes: list[list[Any]] = []
    for key, value in spec.axes.items():
        try:
            axes.append(_alternatives(value if _form(value) else {"grid": value}, f"axes.{key}"))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return [dict(zip(spec.axes, values, strict=True)) for values in _product(axes, "axes")]


def randoms(value: Any, where: str = "") -> dict[str, Random]:
    """Return the random values inside a value, by dotted path."""
    if isinstance(value, Random):
        return {where: value}
    found: dict[str, Random] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            found |= randoms(item, f"{where}.{key}" if where else str(key))
    return found


def fill(point: Point, seed: int, draw: int) -> Point:
    """Return the point with every random value drawn."""
    drawn: Point = replace_randoms(
        point, lambda key, r: r.draw(np.random.default_rng(seed_for(seed, draw, key)))
    )
    return drawn


def replace_randoms(point: Any, value_of: Callable[[str, Random], Any], where: str = "") -> Any:
    """Return a copy of a point with `value_of(dotted key, random)` in place of random values."""
    if isinstance(point, Random):
        return value_of(where, point)
    if isinstance(point, Mapping):
        return {
            key: replace_randoms(item, value_of, f"{where}.{key}" if where else str(key))
            for key, item in point.items()
        }
    return point


def settings(base: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return the unchecked configuration of a point; sections are set before their parameters."""
    data: dict[str, Any] = copy.deepcopy(dict(base))
    full = {SHORTHANDS.get(key, key): value for key, value in point.items()}
    for key in sorted(full, key=lambda k: k.count(".")):
        put(data, key, _merged(data.get(key), copy.deepcopy(full[key])))
    return data


def _merged(base: Any, value: Any) -> Any:
    """Add the parameters that the base gives to the same plugin to a section on an axis."""
    if not isinstance(base, Mapping) or not isinstance(value, str | Mapping):
        return value
    given = {"name": value} if isinstance(value, str) else value
    same = "name" not in base or given.get("name", base["name"]) == base["name"]
    return {**base, **given} if same else value


def _form(value: Any) -> str | None:
    """Return the name of the form that a value has, if any."""
    if isinstance(value, Mapping) and len(value) == 1:
        (key,) = value
        return key if key in (*GRIDS, *RANDOM) else None
    return None


def _alternatives(value: Any, where: str) -> list[Any]:
    """Return every grid alternative of a value; random values stay :class:`Random`."""
    form = _form(value)
    if form in GRIDS:
        items = _range(value[form], where) if form == "range" else value[form]
        if not isinstance(items, list | tuple) or not items:
            raise ConfigError(
                f"{where}={items!r}: expected a list with at least one value, or a form such as "
                f"{{range: 5}}. Forms: {', '.join((*GRIDS, *RANDOM))}"
            )
        return [a for item in items for a in _alternatives(item, where)]
    if form is not None:
        if fault := _random_fault(form, value[form]):
            raise ConfigError(f"{where}: {form}={value[form]!r}: {fault}")
        return [Random(form, tuple(value[form]))]
    if isinstance(value, Mapping):
        parts = [_alternatives(item, f"{where}.{key}") for key, item in value.items()]
        return [dict(zip(value, chosen, strict=True)) for chosen in _product(parts, where)]
    return [value]


def _range(bounds: Any, where: str) -> list[int]:
    given = [0, bounds] if isinstance(bounds, int) else bounds
    if not (isinstance(given, list) and len(given) == 2 and all(type(b) is int for b in given)):
        raise ConfigError(f"{where}: range={bounds!r}: expected n or [from, to]")
    if given[1] - given[0] > MOST_POINTS:
        raise _too_many(where, given[1] - given[0])
    return list(range(*given))


def _product(alternatives: Sequence[Sequence[Any]], where: str) -> Iterator[tuple[Any, ...]]:
    """Return one of each in every combination, unless they are too many for any sweep."""
    if (number := math.prod(map(len, alternatives))) > MOST_POINTS:
        raise _too_many(where, number)
    return itertools.product(*alternatives)


def _too_many(where: str, number: int) -> ConfigError:
    return ConfigError(f"{where} has {number:,} points, above {MOST_POINTS:,}; give fewer values")


def _random_fault(form: str, arguments: Any) -> str | None:
    if not isinstance(arguments, list | tuple) or not arguments:
        return "expected a list"
    if form == "choice":
        return None
    if len(arguments) != 2 or not all(
        isinstance(a, int | float) and not isinstance(a, bool) for a in arguments
    ):
        return "expected two numbers, [low, high]"
    low, high = arguments
    if not all(math.isfinite(a) and abs(a) < 2**63 for a in arguments):
        return "expected finite numbers"
    if not low < high:
        return "low must be below high"
    if form == "loguniform" and low <= 0:
        return "low must be positive"
    if form == "integers" and not all(isinstance(a, int) for a in arguments):
        return "expected whole numbers"
    return None
