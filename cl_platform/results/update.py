"""What an update gained and lost, measured against what was required of it."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cl_platform.config.labels import duration
from cl_platform.config.registry import suggestion
from cl_platform.core.json_text import finite
from cl_platform.errors import BadInput
from cl_platform.metrics.registry import Direction
from cl_platform.results.result import Result

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Measure:
    """A number that an update is judged by.

    Args:
        meaning: what a person reads.
        direction: whether more or less is better.
        unit: ``fraction`` (shown in %), ``s``, ``B`` or none.
    """

    meaning: str
    direction: Direction = "more"
    unit: str = "fraction"


MEASURES = {
    "old_accuracy": Measure("mean accuracy on the experiences before, after the update"),
    "old_accuracy_before": Measure("the same before the update"),
    "old_accuracy_change": Measure("the difference of the two"),
    "new_accuracy": Measure("mean accuracy on the new experiences, after the update"),
    "new_accuracy_before": Measure("the same before the update"),
    "accuracy": Measure("mean accuracy on all experiences, after the update"),
    "negative_flips": Measure("old test samples right before, wrong now", "less"),
    "positive_flips": Measure("old test samples wrong before, right now"),
    "worst_class_change": Measure("of the class that lost most, on old test samples"),
    "seconds": Measure("of training in the update", "less", "s"),
    "parameters": Measure("after the update", "less", ""),
    "state_bytes": Measure("the state after the update", "less", "B"),
}


@dataclass(frozen=True)
class Requirement:
    """A threshold for a measure, such as ``old_accuracy>=0.9``."""

    measure: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Return the requirement that a text states.

        Raises:
            BadInput: it has another form, or names no measure.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)(%?)\s*", text)
        try:
            name, comparison, number, percent = found.groups()  # type: ignore[union-attr]
            bound = float(number) / (100 if percent else 1)
        except (AttributeError, ValueError):
            raise BadInput(
                f"requirement {text!r:.80}: give MEASURE>=NUMBER (or <=, >, <), such as "
                "old_accuracy>=0.9"
            ) from None
        if name not in MEASURES:
            raise BadInput(
                f"requirement {text!r:.80}: no such measure.{suggestion(name, MEASURES)}"
            )
        return cls(name, comparison, bound)

    def holds(self, value: float) -> bool:
        """Return whether a value meets it; nan does not."""
        return COMPARISONS[self.comparison](value, self.bound)

    @property
    def words(self) -> str:
        """The threshold as people read it."""
        sign = {">=": "≥", "<=": "≤"}.get(self.comparison, self.comparison)
        return f"{sign} {shown(self.measure, self.bound)}"

    def __str__(self) -> str:
        return f"{self.measure}{self.comparison}{self.bound:g}"


@dataclass(frozen=True)
class ClassChange:
    """What became of the old test samples of a class: their number, and shares of them."""

    name: str
    samples: int
    before: float
    after: float
    negative_flips: float
    positive_flips: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, eq=False)
class Update:
    """A run before and after it went on with new data.

    Args:
        before, after: the results; the first is untouched.
        measures: by name, see ``MEASURES``.
        classes: of the old test samples, the largest loss first.
        requirements: what was asked for.
    """

    before: Result
    after: Result
    measures: dict[str, float]
    classes: list[ClassChange]
    requirements: tuple[Requirement, ...]

    @property
    def failed(self) -> list[Requirement]:
        """The requirements that do not hold."""
        return [r for r in self.requirements if not r.holds(self.measures[r.measure])]

    @property
    def verdict(self) -> Literal["go", "no-go", "no thresholds set"]:
        """What the requirements come to."""
        if not self.requirements:
            return "no thresholds set"
        return "no-go" if self.failed else "go"

    @property
    def changed_classes(self) -> list[ClassChange]:
        """The classes of which a sample is predicted otherwise than before."""
        return [c for c in self.classes if c.negative_flips or c.positive_flips]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `update.json`."""
        document = {
            "before": self.before.run_id,
            "after": self.after.run_id,
            "verdict": self.verdict,
            "measures": self.measures,
            "requirements": {str(r): r not in self.failed for r in self.requirements},
            "classes": [vars(c) for c in self.classes],
        }
        return finite(document)


def shown(measure: str, value: float) -> str:
    """Return a value of a measure with its unit."""
    unit = MEASURES[measure].unit
    if math.isnan(value):
        return "-"
    if unit == "s":
        return duration(value) if value >= 60 else f"{value:.1f} s"
    if unit == "fraction":
        sign = "+" if measure.endswith("change") else ""
        return f"{100 * value:{sign}.2f} %"
    return f"{value:,.0f}" + (f" {unit}" if unit else "")
