"""The order in which people count: numbers as numbers, ``class2`` before ``class10``."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def is_number(text: str) -> bool:
    """Return whether a text is a finite decimal number."""
    return bool(_NUMBER.fullmatch(text))


def natural(text: str) -> tuple[Any, ...]:
    """Return a key that sorts numbers by their size, before all other texts."""
    if is_number(text):
        return (0, float(text), text)
    parts = re.split(r"(\d+)", text)  # every second one is a number
    return (1, tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), text)
