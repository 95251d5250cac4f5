"""``clp metrics``: what results are measured by, and metrics for runs that have ended."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from cl_platform.cli.app import print_json

metrics = App(
    name="metrics",
    help="List the metrics, or add one to runs that have ended.",
    result_action="return_none",
)
JSON = Annotated[bool, Parameter(name=["--json"], negative="")]


@metrics.default
def show(*, json_: JSON = False) -> None:
    """List the registered metrics.

    Parameters
    ----------
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.metrics.registry import metrics as registered

    found = {
        name: {
            "title": metric.title,
            "better": metric.direction,
            "computed_from": metric.computed_from,
            "what": metric.meaning,
        }
        for name, metric in registered().items()
    }
    if json_:
        print_json(found)
        return
    from rich.table import Table

    from cl_platform.tracking.console import new_console

    table = Table(box=None)
    table.add_column("name", style="cyan", no_wrap=True)
    for column in ("better", "from", "what"):
        table.add_column(column)
    for name, entry in found.items():
        table.add_row(name, entry["better"], entry["computed_from"], entry["what"])
    new_console().print(table)


@metrics.command
def add(name: str, folder: str, /, *, json_: JSON = False) -> None:
    """Compute a metric over the finished runs of a folder and write it into each result.json.

    Nothing is trained; the values are those that the runs would have had.

    Parameters
    ----------
    name
        A registered metric, module:function or path/to/file.py:function.
    folder
        Of a sweep, or the --out of runs; or its address.
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.results.added import add_metric

    added = add_metric(name, folder)
    for line in added.missing:
        print(line, file=sys.stderr)
    done = sum(map(bool, added.values.values()))
    if json_:
        print_json({"metric": added.metric.name, "values": added.values, "missing": added.missing})
    else:
        print(f"{added.metric.name}: written for {done} of {len(added.values)} runs")
