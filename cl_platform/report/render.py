"""Reports on the runs of a folder: a page for people, tables for papers and programs.

``runs.py`` reads a folder, ``points.py`` and ``leaderboard.py`` put runs together, ``sections.py``
writes the page (whose script is ``page.js``, fed by ``page_data.py``), ``orders/`` is about orders
of learning, ``papers/`` makes tables for papers. A new column of the leaderboard is a registered
metric, a new part of the page a function in ``sections.py``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cl_platform.errors import BadInput
from cl_platform.metrics.improvement import ROPE, checked_rope
from cl_platform.report.papers.layout import Layout
from cl_platform.report.runs import Runs
from cl_platform.storage.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["html", "markdown", "latex", "png", "svg", "pdf", "csv", "parquet"]
TABLES = ("markdown", "latex", "png", "svg", "pdf")
AS_GIVEN = Layout()
BINARY = ("png", "svg", "pdf", "parquet")  # are no text for a terminal


def write_report(runs: Runs, *, reload: float = 0, rope: float = ROPE) -> Path:
    """Write `report.html` and `runs.parquet` into the folder of the runs; returns the page's path.

    Args:
        reload: seconds after which the page looks for a newer one; 0 if there will be none.
        rope: see :func:`render`.
    """
    if not runs.frame.empty:
        write_atomic(runs.folder / "runs.parquet", render(runs, "parquet"))
    path = runs.folder / "report.html"
    write_atomic(path, _html(runs, reload, rope))
    return path


def render(runs: Runs, kind: Format, layout: Layout = AS_GIVEN, *, rope: float = ROPE) -> bytes:
    """Return a report as the content of a file: the page, a table for a paper, or a row per run.

    Args:
        layout: of a table for a paper.
        rope: on the page, the difference of accuracy that does not matter, as a fraction.

    Raises:
        BadInput: a package is missing, there is nothing to put into a table, or an argument is of
            another kind of report.
    """
    check(kind, layout, rope)
    if kind != "html" and runs.frame.empty:
        raise BadInput(f"{runs.folder} has no finished run yet: nothing to put into a table")
    if kind == "html":
        return _html(runs, rope=rope)
    if kind in TABLES:
        return _paper(runs, kind, layout)
    return _csv(runs) if kind == "csv" else _parquet(runs)


def check(kind: Format, layout: Layout, rope: float) -> None:
    """Refuse arguments that are of another kind of report.

    Raises:
        BadInput: they are.
    """
    if kind not in TABLES and layout != AS_GIVEN:
        raise BadInput(
            "columns, digits, spread, by, caption and label are of tables for papers: give "
            f"--format latex, markdown, png, svg or pdf in place of {kind}"
        )
    if kind != "latex" and layout.label:
        raise BadInput(f"label={layout.label}: only LaTeX has labels; give --format latex")
    if kind != "html" and rope != ROPE:
        raise BadInput(f"rope={rope:g} is of the page: leave --format {kind} away")
    checked_rope(rope)


def _html(runs: Runs, reload: float = 0, rope: float = ROPE) -> bytes:
    try:
        from cl_platform.report.sections import page

        return page(runs, reload, rope).encode()
    except ImportError as error:
        raise _missing(error.name) from error


def _paper(runs: Runs, kind: Format, layout: Layout) -> bytes:
    from cl_platform.report.papers.contents import contents
    from cl_platform.report.papers.picture import picture
    from cl_platform.report.papers.text import latex, markdown

    table = contents(runs, layout)
    if kind in ("png", "svg", "pdf"):
        return picture(table, layout, kind)
    return (markdown if kind == "markdown" else latex)(table, layout).encode()


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
