"""``clp compare``: what differs between two folders, in settings and in results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cl_platform.report.differences import Differences


def compare(
    a: str,
    b: str,
    /,
    *,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Compare two folders, each of a run, a sweep or an --out: what differs in both.

    Where a folder has several runs, the values of a setting stand together, and metrics are means
    with their standard deviation; p is of the paired t test over the seeds that both have.

    Parameters
    ----------
    a
        The folder of a run, of a sweep, an --out, or the id of a run in clp-results.
    b
        Another one.
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.cli.app import print_json
    from cl_platform.report.differences import differences
    from cl_platform.tracking.console import new_console

    found = differences(a, b)
    if json_:
        print_json(found.to_json())
    else:
        _show(found, new_console())


def _show(found: Differences, console: Console) -> None:
    from cl_platform.report.differences import mean_and_sd, shortened
    from cl_platform.report.page import p_value
    from cl_platform.tracking.console import Whole

    for name, side in (("A", found.a), ("B", found.b)):
        runs = "1 run" if side.runs == 1 else f"{side.runs} runs"
        console.print(f"{name}  {side.path} ({runs})", soft_wrap=True)
    console.print()
    if found.settings:
        table = _table("setting", "A", "B")
        for key, one, other in found.settings:
            table.add_row(key, shortened(one), shortened(other))
        console.print(Whole(table), crop=False)
    else:
        console.print("no setting differs, nor the code, the data or the versions")
    console.print()
    table = _table("metric", "A", "B", "B - A", *(["p"] if found.p else []), numbers=True)
    for metric, a, b in found.metrics:
        difference = mean_and_sd(b)[0] - mean_and_sd(a)[0]
        better = difference * metric.sign
        style = "green" if better > 0 else "red" if better < 0 else "dim"
        cells = [_spread(values) for values in (a, b)]
        p = [p_value(found.p.get(metric.name, math.nan))] if found.p else []
        table.add_row(metric.name, *cells, f"{difference:+.4f}", *p, style=style)
    console.print(Whole(table), crop=False)
    console.print()
    several = (
        "means ± standard deviation over runs; " if max(found.a.runs, found.b.runs) > 1 else ""
    )
    tested = (
        f"; p: paired t test over {found.pairs} seeds, each metric by itself" if found.p else ""
    )
    console.print(f"{several}green: B is better, red: worse{tested}", style="dim")


def _spread(values: list[float]) -> str:
    from cl_platform.report.differences import mean_and_sd

    mean, sd = mean_and_sd(values)
    return f"{mean:.4f}" if sd is None else f"{mean:.4f} ± {sd:.4f}"


def _table(*columns: str, numbers: bool = False) -> Table:
    """Return a table whose text wraps and whose numbers do not."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, name in enumerate(columns):
        right = numbers and i > 0
        table.add_column(name, overflow="fold", justify="right" if right else "left", no_wrap=right)
    return table
