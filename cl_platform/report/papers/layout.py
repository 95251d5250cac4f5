"""How a table for a paper is laid out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from cl_platform.errors import BadInput

Spread = Literal["interval", "sd", "none"]
By = Literal["row", "stream"]
MOST_DIGITS = 10


@dataclass(frozen=True)
class Layout:
    """What a table shows, and how.

    Args:
        columns: metrics by name (``task/...`` under another mask) or title; if empty, those of the
            leaderboard, and by stream its accuracy.
        digits: after the point; if None, one of percentages and three in all of other numbers.
        spread: after a mean: its 95 % interval, the standard deviation over seeds, or nothing.
        by: a line per row of the leaderboard; or per strategy, with a column per ``stream``.
        caption: a text, not LaTeX.
        label: of the table in LaTeX.
    """

    columns: tuple[str, ...] = ()
    digits: int | None = None
    spread: Spread = "interval"
    by: By = "row"
    caption: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise BadInput(f"columns={self.columns!r}: give a tuple of names")
        if self.digits is not None and not 0 <= self.digits <= MOST_DIGITS:
            raise BadInput(f"digits={self.digits}: give 0 to {MOST_DIGITS} digits after the point")
        for name, allowed in (("spread", Spread), ("by", By)):
            if getattr(self, name) not in get_args(allowed):
                given, known = getattr(self, name), ", ".join(get_args(allowed))
                raise BadInput(f"{name}={given!r}: give one of {known}")
        if self.by == "stream" and len(self.columns) > 1:
            given = ", ".join(self.columns)
            raise BadInput(f"columns {given} by stream: there is room for one, give a table each")
        if not re.fullmatch(r"[\w:.+/-]*", self.label, re.ASCII):
            raise BadInput(f"label={self.label!r}: give letters, digits and : . _ + / - alone")
