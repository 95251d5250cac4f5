"""Tables in documents, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def table(name: str, document: str) -> list[str]:
    """The lines between the marks of a table."""
    text = (DOCS / document).read_text(encoding="utf-8")
    return text.split(_start(name))[1].split(_end(name))[0].splitlines()


def write_table(name: str, document: str, lines: Sequence[str]) -> None:
    """Replace the lines between the marks."""
    path = DOCS / document
    before, rest = path.read_text(encoding="utf-8").split(_start(name))
    after = rest.split(_end(name))[1]
    middle = "\n".join([_start(name), "", *lines, "", _end(name)])
    path.write_text(before + middle + after, encoding="utf-8")


def _start(name: str) -> str:
    return f"<!-- {name}: start -->"


def _end(name: str) -> str:
    return f"<!-- {name}: end -->"
