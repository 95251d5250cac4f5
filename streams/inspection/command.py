"""``clp data inspect``: what a source holds and the experiences that would come of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from cl_platform.cli.app import overridden, print_json
from cl_platform.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from streams.inspection.findings import Findings

CLASSES, EXPERIENCES = 24, 20  # rows of a table; of more the first and the last are shown
EVEN = 1.25  # sizes of classes are shown as bars if they differ by more
NAME, BAR = 34, 20  # letters of a class, and of the bar of the largest one
LONG = 44  # letters of an experience
SPLITS = ("train", "validation", "test")
SHORT, EXAMPLE = 22, 34  # letters of a class and of a text beside it

data = App(name="data", help="Look at data before anything is trained on them.")


@data.command
def inspect(
    source: str,
    /,
    *,
    scenario: str | None = None,
    picture: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Show classes, sizes, duplicates and the experiences of a source; nothing is trained.

    Parameters
    ----------
    source
        A stream by name, or a path: a folder of class folders, a table (.csv, .tsv, .jsonl,
        .parquet), arrays (.npz, .npy, .pt), a saved datasets folder; hub:NAME for one on the hub.
    scenario
        class, task or domain, where the stream has a choice.
    picture
        Write samples of each class as a picture (.png, .svg, .pdf).
    set_
        Any setting of the stream by its dotted key, stream.x=value; may be repeated.
    json_
        Print one JSON document and nothing else.
    """
    from streams.recognise import section_of

    picture = picture.expanduser() if picture is not None else None
    if picture is not None and (not picture.suffix or os.path.isdir(picture)):
        raise BadInput(f"picture={picture}: give a file such as samples.png")
    settings = overridden([], {"scenario": scenario}, set_ or [])
    if strange := sorted(settings.keys() - {"stream"}):
        raise BadInput(
            f"{', '.join(strange)}: inspect takes settings of the stream alone, stream.KEY=VALUE"
        )
    section = {**section_of(source), **_parameters(settings.get("stream", {}))}

    from cl_platform.config.signatures import check_section, instantiate
    from streams.inspection.examples import text_examples
    from streams.inspection.findings import find

    section, faults = check_section("stream", section, "stream")
    if faults:
        raise ConfigError("\n".join(faults))
    stream = instantiate("stream", section)
    found = {"source": section, **find(stream)}
    if picture is not None:
        from streams.inspection.picture import write_picture

        write_picture(stream, picture)
    if json_:
        print_json(found)
        return
    _show(found, text_examples(section, stream))
    if picture is not None:
        from cl_platform.tracking.console import new_console

        new_console().print(f"\n{picture}", style="dim", soft_wrap=True)


def _parameters(section: Any) -> dict[str, Any]:
    if not isinstance(section, dict) or "name" in section:
        raise BadInput("stream.name: the source names the stream; leave the name out")
    return dict(section)


def _show(found: Findings, texts: Mapping[str, str]) -> None:
    from rich.text import Text

    from cl_platform.tracking.console import Whole, new_console

    console = new_console()
    console.print(Text(found["stream"], style="bold"))
    for line in _heading(found):
        console.print(line, style="dim")
    columns = [_columns(found)] if found["columns"] else []
    for table in (_classes(found, texts), _experiences(found), *columns):
        console.print()
        console.print(Whole(table), crop=False)
    console.print()
    for warning in found["warnings"]:
        console.print(_bullet("!", "yellow", warning["message"], warning["cases"]))
    if fine := _good(found):
        console.print(_bullet("\N{CHECK MARK}", "green", fine))


def _heading(found: Findings) -> list[str]:
    from rich.filesize import decimal

    inputs, samples = found["inputs"], found["samples"]
    online = ", each sample once" if found["online"] else ""
    shape = " x ".join(map(str, inputs["shape"]))
    sizes = ", ".join(f"{n:,} {split}" for split, n in samples.items() if n)
    where = "memory-mapped" if inputs["mapped"] else "in memory"
    scored = f", scored on {len(found['columns'])}" if found["columns"] else ""
    lines = [
        f"{found['scenario']}-incremental{online}: {len(found['experiences'])} experiences of "
        f"{len(found['classes'])} classes{scored}",
        f"{sizes} samples, {decimal(inputs['bytes'])} {where}",
        f"{inputs['kind']}, {shape} {inputs['dtype']}",
    ]
    if inputs["kind"] in ("images", "numbers"):
        lines[-1] += (
            f", from {inputs['smallest']:g} to {inputs['largest']:g}, "
            f"mean {inputs['mean']:.3g}, std {inputs['std']:.3g}"
        )
    return lines


def _classes(found: Findings, texts: Mapping[str, str]) -> Table:
    """Return a row for each class, with an example where there are texts, or a bar for its size."""
    from rich.text import Text

    classes, largest = found["classes"], max(c["train"] for c in found["classes"])
    width = SHORT if texts else NAME
    table = _counted(found, "class")
    bars = not texts and found["imbalance"] > EVEN
    if texts:
        table.add_column("for example", no_wrap=True)
    elif bars:
        table.add_column("")
    for c in _ends(classes, CLASSES):
        if c is None:
            table.add_row(_left_out(classes, CLASSES), style="dim")
            continue
        row: list[str | Text] = [*_row(found, c, width)]
        if texts:
            row.append(Text(_begin(texts.get(c["name"], "")), "dim"))
        elif bars and c["train"]:
            row.append(
                "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * max(1, round(BAR * c["train"] / largest))
            )
        table.add_row(*row)
    return table


def _begin(text: str) -> str:
    return text if len(text) <= EXAMPLE else f"{text[: EXAMPLE - 1]}\N{HORIZONTAL ELLIPSIS}"


def _experiences(found: Findings) -> Table:
    experiences = found["experiences"]
    splits = ("train",) if found["columns"] else SPLITS
    table = _counted(found, "experience", "classes", splits=splits)
    for number, e in enumerate(experiences, 1):
        e["label"] = f"{number:>{len(str(len(experiences)))}}  {e['name']}"
    for e in _ends(experiences, EXPERIENCES):
        if e is None:
            table.add_row(_left_out(experiences, EXPERIENCES), style="dim")
        else:
            table.add_row(*_row(found, e, LONG, str(len(e["classes"])), splits=splits))
    return table


def _columns(found: Findings) -> Table:
    """Return a row for each column of the matrix, with the number of experiences that train it."""
    table = _counted(found, "scored", "classes", "experiences", splits=SPLITS[1:])
    for e in _ends(found["columns"], EXPERIENCES):
        if e is None:
            n = len(found["columns"]) - EXPERIENCES
            table.add_row(f"\N{HORIZONTAL ELLIPSIS} {n:,} more", style="dim")
            continue
        steps = str(e["steps"]) if e["steps"] else "held out"
        table.add_row(*_row(found, e, LONG, str(len(e["classes"])), steps, splits=SPLITS[1:]))
    return table


def _counted(found: Findings, *columns: str, splits: Sequence[str] = SPLITS) -> Table:
    """Return an empty table with these columns and one for each split that has samples."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(columns[0], no_wrap=True)
    for name in (*columns[1:], *(split for split in splits if found["samples"][split])):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(
    found: Findings, item: Findings, width: int, *more: str, splits: Sequence[str] = SPLITS
) -> list[str]:
    from streams.inspection.findings import shortened

    name = shortened(str(item.get("label", item["name"])), width)
    return [name, *more, *(f"{item[split]:,}" for split in splits if found["samples"][split])]


def _ends(items: Sequence[Findings], most: int) -> list[Findings | None]:
    """Return the items, of more than `most` the first and the last, with None between them."""
    if len(items) <= most:
        return list(items)
    half = most // 2
    return [*items[:half], None, *items[-half:]]


def _left_out(items: Sequence[Findings], most: int) -> str:
    sizes = [item["train"] for item in items[most // 2 : -(most // 2)]]
    low, high = min(sizes), max(sizes)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"\N{HORIZONTAL ELLIPSIS} {len(sizes):,} more ({each})"


def _good(found: Findings) -> str:
    """Return what was looked for and is in order, as one line."""
    within, across, differ = found["duplicates"].values()
    lines = []
    if found["samples"]["test"] and not across["rows"]:
        lines.append("no test sample is in the training data")
    if not differ["inputs"]:
        lines.append("no input has two labels")
    if not within["rows"]:
        lines.append("all training samples differ")
    return ", ".join(lines)


def _bullet(mark: str, style: str, message: str, cases: Sequence[str] = ()) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(Text(mark, style), message)
    for case in cases:
        grid.add_row("", Text(case, "dim"))
    return grid
