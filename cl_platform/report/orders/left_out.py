"""Which orders a comparison of orders leaves out, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_platform.report.orders.study import FEWEST
from cl_platform.report.points import axes_of
from cl_platform.report.runs import Runs

SHOWN = 3  # seeds, or errors, that are named
Point = tuple[tuple[str, str], ...]


@dataclass
class Order:
    """One order at a point: its seeds, and what became of them.

    Args:
        done: the orders that its seeds gave: a curriculum may draw one for each.
        failed: errors, by seed.
    """

    done: dict[str, tuple[int, ...]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """The orders that are left out at a point of the other axes.

    Args:
        why: by order, in words.
        orders: how many there are or were to be.
        studied: whether those that remain are enough for a study.
    """

    point: str
    why: Mapping[str, str]
    orders: int

    @property
    def studied(self) -> bool:
        return self.orders - len(self.why) >= FEWEST

    def __str__(self) -> str:
        whole = self.orders - len(self.why)
        if self.orders >= FEWEST and not self.studied:
            return (
                f"{self.point}: no study of orders, which takes {FEWEST} with every seed; "
                f"{whole} of {self.orders} have that"
            )
        verb = "is" if len(self.why) == 1 else "are"
        return f"{self.point}: {len(self.why)} of {self.orders} orders {verb} left out"


def left_out(runs: Runs) -> list[LeftOut]:
    """Return what is left out at each point of the other axes, where anything is."""
    found = []
    for point, orders in _orders(runs).items():
        seeds = [*dict.fromkeys(seed for order in orders.values() for seed in order.done)]
        many = len(orders) >= FEWEST
        why = {name: said for name, one in orders.items() if (said := _why(one, seeds, many))}
        if why and len(orders) > 1:
            name = " ".join(value for _, value in point if value != "nan")
            found.append(LeftOut(name or _strategy(runs), why, len(orders)))
    return found


def _orders(runs: Runs) -> dict[Point, dict[str, Order]]:
    """Return the orders of each point, by their name there: planned ones, done or not."""
    if runs.frame.empty or "axis.curriculum" not in runs.frame:
        return {}
    axes = axes_of(runs.frame, "curriculum")
    found: dict[Point, dict[str, Order]] = {}

    def order(values: Mapping[Any, Any]) -> Order:
        point = tuple((a, str(values.get(a, "nan"))) for a in axes)
        return found.setdefault(point, {}).setdefault(str(values["axis.curriculum"]), Order())

    for values in runs.frame[[*axes, "axis.curriculum", "seed", "order"]].to_dict("records"):
        order(values).done[str(values["seed"])] = values["order"]
    planned = runs.sweep["phases"][-1]["runs"] if runs.sweep else []
    errors = {failure.run_id: failure.error for failure in runs.failures}
    for run in planned:
        point = {f"axis.{key}": value for key, value in run["point"].items()}
        seed = run["point"].get("seed", str(runs.frame["seed"].iloc[0]))
        if run["whole"] and "axis.curriculum" in point:
            one = order(point)
            if seed not in one.done:
                one.failed[seed] = errors.get(run["run_id"], "not done yet")
    return found


def _why(order: Order, seeds: Sequence[str], studied: bool) -> str:
    """Return why an order is left out; empty if it is not. A study takes orders, not curricula."""
    if studied and len({*order.done.values()}) > 1:
        return "each seed draws an order of its own"
    lacking = [seed for seed in seeds if seed not in order.done]
    if not lacking:
        return ""
    named = [f"{seed} ({order.failed.get(seed, 'not run')})" for seed in lacking[:SHOWN]]
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    return f"lacks seed{'s' * (len(lacking) > 1)} {', '.join(named)}{more}"


def _strategy(runs: Runs) -> str:
    return str(runs.frame["strategy.name"].iloc[0])
