"""``clp report``: a page or a table of the runs in a folder."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter


def report(
    folder: str,
    /,
    *,
    format_: Annotated[
        Literal["html", "markdown", "latex", "csv", "parquet"], Parameter(name=["--format"])
    ] = "html",
    out: str | None = None,
    code: str = "newest",
    watch: Annotated[bool, Parameter(negative="")] = False,
    every: float = 10.0,
) -> None:
    """Write a report on the runs of a folder: a page, or a table for a paper or a program.

    Parameters
    ----------
    folder
        Of a sweep, or the --out of runs; or its address.
    format_
        html: a page that needs nothing else; markdown, latex: the leaderboard, with intervals over
        seeds and what is best within noise in bold; csv, parquet: one row per run.
    out
        The file to write (default: report.html or runs.parquet in the folder; others are printed).
    code
        Where equal settings were run with several versions of the code: newest, all (in rows of
        their own), or the digest of one.
    watch
        Write the page again while a sweep goes on; an open page reloads.
    every
        Seconds between two looks at the folder.
    """
    from cl_platform.errors import BadInput
    from cl_platform.report.render import render, write_report
    from cl_platform.report.runs import read_runs
    from cl_platform.storage.files import location, write_atomic, write_output

    if not every > 0 or (watch and (format_ != "html" or out is not None)):
        raise BadInput(
            f"watch={watch} with every={every:g}, format={format_}, out={out}: only the page in "
            "the folder is watched, with a time above 0; leave --format and --out away"
        )
    if watch:
        _watch(folder, code, every)
        return
    runs = read_runs(folder, code)
    if runs.left_out:
        print(runs.left_out, file=sys.stderr)
    if out is not None:
        if write_output(location(out).absolute(), render(runs, format_)):
            print(out)
    elif format_ == "html":
        print(write_report(runs))
    elif format_ == "parquet":
        path = runs.folder / "runs.parquet"
        write_atomic(path, render(runs, format_))
        print(path)
    else:
        sys.stdout.write(render(runs, format_).decode())


def _watch(folder: str, code: str, every: float) -> None:
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
                path = write_report(runs, reload=every if runs.running else 0)
                print(f"{now[0]} of {now[2]} runs" if seen else path, flush=True)
                seen = now
            if not runs.running:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        raise interrupted("the report is as new as it can be") from None
