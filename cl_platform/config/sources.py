"""Which door new data go through."""

from __future__ import annotations


def section_of(source: str) -> dict:
    return {"name": source}
