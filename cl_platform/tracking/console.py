"""The console: progress while a run goes on, its matrix and metrics at the end."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cl_platform.core.matrix import OWN_MASK
from cl_platform.results.budget import beyond
from cl_platform.results.notebook import ZERO, ZERO_NOTE, held_out_words, metric_rows
from cl_platform.results.result import Result
from cl_platform.tracking.sinks import Event


def new_console(**options: Any) -> Console:
    """Return a console that prints text as it is: names that people give are no markup."""
    return Console(highlight=False, markup=False, emoji=False, **options)


WIDEST_MATRIX = 20  # columns that fit 80 characters with two digits each
MOST_ROWS = 40  # the last of more slices


class ConsoleSink:
    """Shows a run to a person; without a terminal it prints the outcome only."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or new_console()
        self.steps_done = 0
        self._start: Event = {}
        self._visits: list[int] = []  # unless one experience follows the other
        self._progress: Progress | None = None
        self._bar: Any = None

    def emit(self, event: Event) -> None:
        show = getattr(self, f"_on_{event['event']}", None)
        if show is not None:  # diagnostics are for files and W&B
            show(event)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _on_start(self, event: Event) -> None:
        self._start = event
        self._visits = [column for column, _ in event["visits"]]
        config = event["config"]
        strategy, order, model = (config[k]["name"] for k in ("strategy", "curriculum", "model"))
        self.console.print(Text.assemble((strategy, "bold"), " on ", (event["stream"], "bold")))
        self.console.print(
            f"{event['scenario']}-incremental, order {order}, model {model}, "
            f"seed {config['seed']}, run {event['run_id']}",
            style="dim",
        )
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("[dim]{task.fields[note]}[/]"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            total = None if event.get("teacher") else self._steps()
            self._bar = self._progress.add_task(self._place(1), total=total, note="")
            self._progress.start()

    def _on_progress(self, event: Event) -> None:
        if self._progress is not None:
            share = event["done"] / event["total"]
            self._progress.update(
                self._bar,
                completed=event["step"] - 1 + share,
                description=self._place(event["step"]),
                note=f"loss {event['loss']:.3f}",
            )

    def _on_evaluated(self, event: Event) -> None:
        self.steps_done = event["step"]
        if self._progress is None or event["step"] == 0:
            return
        experiences = self._start["experiences"]
        visits = self._visits[: event["step"]] or range(event["step"])
        learned = [experiences[i] for i in dict.fromkeys(visits)]
        rows = event["rows"]["test"][OWN_MASK[self._start["scenario"]]]
        mean = sum(rows[e["identity"]] for e in learned) / len(learned)
        name = _shorten(experiences[visits[-1]]["name"], 40)
        line = f"  {event['step']:>2}  {name:<40}  mean accuracy so far {mean:6.1%}"
        again = " (kept)" if event["reused"] else ""
        self._progress.console.print(Text.assemble(line, (again, "dim")))
        self._progress.update(self._bar, completed=event["step"])

    def _on_decided(self, event: Event) -> None:
        self._visits.append(event["experience"])

    def _steps(self) -> int:
        return len(self._visits) or sum("held_out" not in e for e in self._start["experiences"])

    def _place(self, step: int) -> str:
        if self._start.get("teacher"):
            return f"slice {step}"
        return f"experience {step} of {self._steps()}"

    def _on_end(self, event: Event) -> None:
        self.close()
        result = Result.from_json(event["result"])
        print_result(result, self.console)
        if event["reused"]:
            note = "This run had finished before: nothing was trained, its result was read."
            self.console.print(note, style="dim")

    def _on_failed(self, event: Event) -> None:
        self.close()


class Whole:
    """A table that a narrow console wraps instead of cutting its numbers.

    Args:
        table: at most 80 columns wide. To be printed with `crop=False`.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update(width=max(80, options.max_width)))


def print_result(result: Result, console: Console) -> None:
    """Return the accuracy matrix and the metrics, within 80 columns."""
    n = len(result.matrix)
    console.print()
    title = f"Accuracy in % on experience 1..{n}"
    own = OWN_MASK[result.scenario]
    aside = f" (mask: {own}){held_out_words(result.matrix, own)}"
    console.print(Text.assemble((title, "bold"), aside))
    if n <= WIDEST_MATRIX:
        console.print(Whole(_matrix_table(result)), crop=False)
    else:
        console.print("  too wide to be shown here: see result.json")
    console.print()
    console.print(Whole(_metrics_table(result)), crop=False)
    cost = result.cost
    flops = f", {cost['flops']:.3g} FLOPs" if "flops" in cost else ""
    console.print()
    console.print(
        f"{cost['steps']:,} steps in {cost['train_seconds']:.1f} s{flops}, evaluated in "
        f"{cost['eval_seconds']:.1f} s, {cost['trainable_parameters']:,} parameters",
        style="dim",
    )
    for line in beyond(result.config, cost):
        console.print(f"over budget: {line}", style="yellow")


def _matrix_table(result: Result) -> Table:
    n = len(result.matrix)
    wide = n <= 9  # with a decimal, and the experience's name in front
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("after", no_wrap=True)
    for j in range(n):
        apart = "| " if j in result.matrix.held_out[:1] else ""
        table.add_column(f"{apart}{j + 1}", justify="right", no_wrap=True)
    room = min(26, 72 - 6 * n)
    matrix = result.matrix
    for i, (k, label) in enumerate(zip(matrix.rows, matrix.labels(), strict=True)):
        if 0 < i < len(matrix.rows) - MOST_ROWS:
            continue
        learned = {*matrix.visits[:k]}
        cells = [_cell(matrix[i, j], wide, learned=j in learned) for j in range(n)]
        table.add_row(_shorten(label, room + 3) if wide else (str(k) if k else "-"), *cells)
    return table


def _cell(accuracy: float, wide: bool, learned: bool) -> Text:
    if not learned:
        style = "dim"
    elif accuracy >= 0.8:
        style = "green"
    else:
        style = "yellow" if accuracy >= 0.5 else "red"
    return Text(f"{100 * accuracy:.1f}" if wide else f"{100 * accuracy:.0f}", style=style)


def _metrics_table(result: Result) -> Table:
    """Return a row per metric and a column per mask, of test data."""
    own = OWN_MASK[result.scenario]
    masks = [own, *(m for m in result.matrices if m != own)]
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("metric, by mask", no_wrap=True)
    for mask in masks:
        table.add_column(mask, justify="right")
    for row in (rows := metric_rows(result, masks)):
        table.add_row(*row)
    if any(ZERO in row for row in rows):
        table.caption, table.caption_justify = Text(ZERO_NOTE, style="dim"), "left"
    return table


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
