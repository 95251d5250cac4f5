"""A sink: one line of text for each evaluation, as it happens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TextFile:
    """Append a line per evaluation to a file.

    Args:
        out: folder of the records.
        file: its name in that folder.
    """

    def __init__(self, out: Path, file: str = "evaluations.txt") -> None:
        self.path = Path(out) / file

    def emit(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "evaluated":
            with self.path.open("a") as file:
                file.write(f"evaluated after {event['step']} experiences\n")

    def close(self) -> None:
        """Do nothing: the file is closed after each line."""
