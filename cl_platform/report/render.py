"""Reports on the runs of a folder: a page for people, tables for papers and programs.

``runs.py`` reads a folder, ``points.py`` and ``leaderboard.py`` put runs together, ``sections.py``
writes the page (whose script is ``page.js``, fed by ``page_data.py``), ``orders/`` is about orders
of learning, ``tables.py`` is for papers. A new column of the leaderboard is a registered metric, a
new part of the page a function in ``sections.py``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cl_platform.errors import BadInput
from cl_platform.report.runs import Runs
from cl_platform.storage.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["html", "markdown", "latex", "csv", "parquet"]
SUFFIXES = dict(zip(get_args(Format), ("html", "md", "tex", "csv", "parquet"), strict=True))
MOST_ROWS = 100  # of a table for papers; beyond it orders are put together


def write_report(runs: Runs, *, reload: float = 0) -> Path:
    """Write `report.html` and `runs.parquet` into the folder of the runs; returns the page's path.

    Args:
        reload: seconds after which the page looks for a newer one; 0 if there will be none.
    """
    if not runs.frame.empty:
        write_atomic(runs.folder / "runs.parquet", render(runs, "parquet"))
    path = runs.folder / "report.html"
    write_atomic(path, _html(runs, reload))
    return path


def render(runs: Runs, kind: Format) -> bytes:
    """Return a report as the content of a file: the page, the leaderboard, or one row per run.

    Raises:
        BadInput: a package is missing, or there is nothing to put into a table.
    """
    if kind != "html" and runs.frame.empty:
        raise BadInput(f"{runs.folder} has no finished run yet: nothing to put into a table")
    return WRITERS[kind](runs)


def _html(runs: Runs, reload: float = 0) -> bytes:
    try:
        from cl_platform.report.sections import page

        return page(runs, reload).encode()
    except ImportError as error:
        raise _missing(error.name) from error


def _paper(runs: Runs, kind: Literal["markdown", "latex"]) -> bytes:
    from cl_platform.report import tables
    from cl_platform.report.leaderboard import measures_of, rows_of

    rows = rows_of(runs)
    if len(rows) > MOST_ROWS:
        rows = rows_of(runs, together=True)
    listed = [m for m in measures_of(runs) if m.listed]
    write = {"markdown": tables.markdown, "latex": tables.latex}[kind]
    return write(rows, listed).encode()


def _parquet(runs: Runs) -> bytes:
    content = io.BytesIO()
    try:
        plain(runs.frame).to_parquet(content)
    except ImportError as error:
        raise _missing("pyarrow") from error
    return content.getvalue()


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with columns of one type each: mappings and lists become text."""
    found = frame.copy()
    for name in found.columns:
        if found[name].dtype == object:
            missing = found[name].isna()
            found[name] = found[name].map(str).mask(missing, None)
    return found


def _csv(runs: Runs) -> bytes:
    from cl_platform.report.tables import csv

    return csv(plain(runs.frame)).encode()


def _missing(package: str | None) -> BadInput:
    return BadInput(f"this needs the package {package}: install the extra `report`")


WRITERS: dict[Format, Callable[[Runs], bytes]] = {
    "html": _html,
    "markdown": lambda runs: _paper(runs, "markdown"),
    "latex": lambda runs: _paper(runs, "latex"),
    "csv": _csv,
    "parquet": _parquet,
}
