"""The outcome of an update on the console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_platform.results.update import MEASURES, Update, shown
from cl_platform.tracking.console import Whole

WORST = 8  # classes shown; the page has more


def print_update(update: Update, console: Console) -> None:
    """Print measures, classes that lost most, and requirements, within 80 columns."""
    console.print()
    console.print(Text(f"Update of {update.before.run_id}", "bold"))
    table = _table("", "before", "after", "change")
    for what in ("old", "new"):
        before, after = (update.measures[f"{what}_accuracy{part}"] for part in ("_before", ""))
        change = shown("old_accuracy_change", after - before)
        table.add_row(f"accuracy on {what} data", _percent(before), _percent(after), change)
    console.print(Whole(table), crop=False)
    console.print()
    for name in ("negative_flips", "positive_flips", "seconds", "parameters", "state_bytes"):
        value = shown(name, update.measures[name])
        console.print(f"{name:<16}{value:>16}  {MEASURES[name].meaning}")
    if lost := [c for c in update.changed_classes if c.change < 0]:
        console.print()
        table = _table("classes that lost most", "samples", "before", "after", "change")
        for c in lost[:WORST]:
            change = shown("worst_class_change", c.change)
            cells = (str(c.samples), _percent(c.before), _percent(c.after), change)
            table.add_row(Text(c.name, overflow="ellipsis", no_wrap=True), *cells)
        console.print(Whole(table), crop=False)
    if update.requirements:
        console.print()
        table = _table("requirement", "required", "found", "")
        for r in update.requirements:
            verdict = Text("fails", "bold red") if r in update.failed else Text("holds", "green")
            table.add_row(r.measure, r.words, shown(r.measure, update.measures[r.measure]), verdict)
        console.print(Whole(table), crop=False)
    console.print()


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column(first, max_width=32)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
