"""What a run was meant to cost at most, against what it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LIMITS = ("samples", "flops", "memory_bytes", "parameters")  # of a budget, and costs of these names


def limits_of(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits of a configuration by name; empty without a budget."""
    budget = config.get("budget") or {}
    return {name: budget[name] for name in LIMITS if budget.get(name) is not None}


def beyond(config: Mapping[str, Any], cost: Mapping[str, float]) -> Iterator[str]:
    """Yield, for each limit that a cost is beyond, what to say of it."""
    for name, limit in limits_of(config).items():
        if cost[name] > limit:
            yield f"{name} {_number(cost[name])} of {_number(limit)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value < 1e9 else f"{value:.3g}"
