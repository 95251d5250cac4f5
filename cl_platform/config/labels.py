"""Short texts for settings and durations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def label(value: Any) -> str:
    """Return the value of a setting as short text: ``er memory_size=100``."""
    if isinstance(value, Mapping) and "order" in value and value.get("name") == "explicit":
        of_what = " (classes)" if value.get("level") == "classes" else ""
        return " ".join(str(i) for i in value["order"]) + of_what
    if isinstance(value, Mapping):
        rest = [f"{k}={label(v)}" for k, v in value.items() if k != "name"]
        return " ".join([str(value.get("name", "")), *rest]).strip()
    if isinstance(value, float):
        short = f"{value:.6g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list | tuple):
        return "[" + " ".join(label(v) for v in value) + "]"
    return str(value)


def duration(seconds: float) -> str:
    """Return a number of seconds as text: ``2 h 05 min``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
