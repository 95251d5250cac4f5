"""``clp report``: a page or a table of the runs in a folder."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

PAPER = Parameter(group="Tables for papers")


def report(
    folder: str,
    /,
    *,
    format_: Annotated[
        Literal["html", "markdown", "latex", "png", "svg", "pdf", "csv", "parquet"],
        Parameter(name=["--format"]),
    ] = "html",
    out: str | None = None,
    code: str = "newest",
    watch: Annotated[bool, Parameter(negative="")] = False,
    every: float = 10.0,
    columns: Annotated[str, PAPER] = "",
    digits: Annotated[int | None, PAPER] = None,
    spread: Annotated[Literal["interval", "sd", "none"], PAPER] = "interval",
    by: Annotated[Literal["row", "stream"], PAPER] = "row",
    caption: Annotated[str, PAPER] = "",
    label: Annotated[str, PAPER] = "",
    rope: float = 0.01,
) -> None:
    """Write a report on the runs of a folder: a page, or a table for a paper or a program.

    Parameters
    ----------
    folder
        Of a sweep, or the --out of runs; or its address.
    format_
        html: a page that needs nothing else; markdown, latex: the leaderboard as a table for a
        paper, the best within noise in bold and the next one underlined; png, svg, pdf: the same
        as a picture; csv, parquet: one row per run.
    out
        The file to write (default: report.html, table.png or the like, or runs.parquet in the
        folder; others are printed).
    code
        Where equal settings were run with several versions of the code: newest, all (in rows of
        their own), or the digest of one.
    watch
        Write the page again while a sweep goes on; an open page reloads.
    every
        Seconds between two looks at the folder.
    columns
        Metrics in a table for a paper, by name or title, with commas: accuracy,forgetting.
    digits
        After the point, in such a table.
    spread
        After a mean in such a table: its 95 % interval, the standard deviation over seeds, or none.
    by
        row: a line per row of the leaderboard; stream: a line per strategy, with one metric and a
        column per stream.
    caption
        Of such a table: a text, not LaTeX.
    label
        Of a table in LaTeX.
    rope
        On the page, the difference of accuracy that does not matter: 0.01 is one point.
    """
    from cl_platform.errors import BadInput
    from cl_platform.report.papers.layout import Layout
    from cl_platform.report.render import BINARY, check, render, write_report
    from cl_platform.report.runs import read_runs
    from cl_platform.storage.files import location, write_atomic, write_output

    if not every > 0 or (watch and (format_ != "html" or out is not None)):
        raise BadInput(
            f"watch={watch} with every={every:g}, format={format_}, out={out}: only the page in "
            "the folder is watched, with a time above 0; leave --format and --out away"
        )
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    layout = Layout(names, digits, spread, by, caption, label)
    check(format_, layout, rope)
    if watch:
        _watch(folder, code, every, rope)
        return
    runs = read_runs(folder, code)
    if runs.left_out:
        print(runs.left_out, file=sys.stderr)
    if out is not None:
        if write_output(location(out).absolute(), render(runs, format_, layout, rope=rope)):
            print(out)
    elif format_ == "html":
        print(write_report(runs, rope=rope))
    elif format_ in BINARY:
        path = runs.folder / ("runs.parquet" if format_ == "parquet" else f"table.{format_}")
        write_atomic(path, render(runs, format_, layout, rope=rope))
        print(path)
    else:
        sys.stdout.write(render(runs, format_, layout, rope=rope).decode())


def _watch(folder: str, code: str, every: float, rope: float) -> None:
    """Write the page whenever something is new, until the sweep has ended."""
    import time

    from cl_platform.cli.app import interrupted
    from cl_platform.report.render import write_report
    from cl_platform.report.runs import read_runs

    seen = None
    try:
        while True:
            runs = read_runs(folder, code)
            now = len(runs.results), runs.errors.total(), runs.planned
            if now != seen or not runs.running:
                path = write_report(runs, reload=every if runs.running else 0, rope=rope)
                print(f"{now[0]} of {now[2]} runs" if seen else path, flush=True)
                seen = now
            if not runs.running:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        raise interrupted("the report is as new as it can be") from None
