"""What programs read: JSON, which has neither nan nor infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

NOTE = "not_finite"


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as one JSON document that any program reads; see :func:`finite`."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        noted = finite(value) if isinstance(value, Mapping) else _nulled(value, None, {})
        return json.dumps(noted, indent=indent, allow_nan=False)


def finite(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with null for every number that is nan or infinite.

    They are noted under the key `not_finite`, as text by dotted key: ``{"metrics.x": "inf"}``.
    """
    notes: dict[str, str] = {}
    found: dict[str, Any] = _nulled(document, None, notes)
    return {**found, NOTE: {**found.get(NOTE, {}), **notes}} if notes else found


def _nulled(value: Any, where: str | None, notes: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        notes[where or ""] = str(value)
        return None
    if type(value) is list and all(type(v) is float and math.isfinite(v) for v in value):
        return value  # a row of a matrix, of which there may be a million numbers
    inside = "" if where is None else f"{where}."
    if isinstance(value, Mapping):
        return {key: _nulled(item, f"{inside}{key}", notes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(item, f"{inside}{i}", notes) for i, item in enumerate(value)]
    return value
