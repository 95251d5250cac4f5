"""``clp list``: the names that can be given."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from cl_platform.cli.app import print_json
from cl_platform.config.registry import Kind, load, plugins

Section = Literal[
    "streams",
    "strategies",
    "curricula",
    "affinities",
    "pacings",
    "encoders",
    "models",
    "augmentations",
    "sinks",
]
KINDS: dict[str, Kind] = {
    "streams": "stream",
    "strategies": "strategy",
    "curricula": "curriculum",
    "affinities": "affinity",
    "pacings": "pacing",
    "encoders": "encoder",
    "models": "model",
    "augmentations": "augmentation",
    "sinks": "sink",
}


def list_plugins(
    kind: Section | None = None,
    /,
    *,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """List what can be named: streams, strategies, curricula, models, sinks and so on.

    Parameters
    ----------
    kind
        Show only streams, strategies, curricula, affinities, pacings, encoders, models,
        augmentations or sinks.
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.config.signatures import describe

    found = {
        section: {name: describe(k, load(k, name)) for name in plugins(k)}
        for section, k in KINDS.items()
        if kind in (None, section)
    }
    if json_:
        print_json(found)
        return
    from rich.table import Table
    from rich.text import Text

    from cl_platform.tracking.console import new_console

    console = new_console()
    for section, entries in found.items():
        table = Table(title=section, title_justify="left", title_style="bold", box=None)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        table.show_header = False
        for name, entry in entries.items():
            parameters = "  ".join(f"{k}={v}" for k, v in entry["parameters"].items())
            below = f"\n{parameters}" if parameters else ""
            table.add_row(name, Text.assemble(entry["summary"], (below, "dim")))
        console.print(table)
        console.print()
