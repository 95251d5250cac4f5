"""``clp affinity``: how much each experience helps to learn the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cl_platform.cli.app import overridden, print_json
from cl_platform.errors import BadInput, one_line

if TYPE_CHECKING:
    import numpy as np

WIDTH, LISTED = 80, 40  # columns of a terminal; experiences that are listed


def affinity(
    *,
    stream: str | None = None,
    by: str = "logme",
    strategy: str | None = None,
    scenario: str | None = None,
    out: Path | None = None,
    picture: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    config: Annotated[list[Path] | None, Parameter(name=["--config"], negative="")] = None,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Estimate or measure how much it helps to have learned one experience before another.

    Rows are what is learned first, columns what is learned after it; no test data are used.

    Parameters
    ----------
    stream
        Stream whose experiences are compared, for example split-mnist (default: split-digits).
    by
        logme, leep, mmd, ...; pairwise trains all orders of two. See clp list affinities. Set its
        parameters by --set affinity.samples=200 etc.
    strategy
        Strategy of the runs of pairwise, as other settings by --set epochs=2 etc.
    scenario
        class, task or domain, where the stream has a choice.
    out
        Write the matrix as JSON, for the affinity file (affinity.path=FILE).
    picture
        Write the matrix as a heat map (.png, .svg, .pdf).
    set_
        Any setting by its dotted key, key=value; may be repeated.
    config
        A YAML file with settings; flags and --set win.
    json_
        Print one JSON document and nothing else.
    """
    flags = {"stream": stream, "affinity": by, "strategy": strategy, "scenario": scenario}
    data = overridden(config or [], flags, set_ or [])

    from cl_platform.config.run_config import parse_config
    from cl_platform.config.signatures import as_section, instantiate
    from cl_platform.core.order.affinity import affinity_of, ask, key_of
    from cl_platform.storage.files import write_json

    section = as_section(data.pop("affinity"))
    settings = parse_config({"stream": data.pop("stream")} if "stream" in data else {})
    made = affinity_of(_with_settings(section, data))
    for path in (out, picture):
        if path is not None and (not path.suffix or os.path.isdir(path)):
            raise BadInput(f"{path}: give a file, such as affinity.json or affinity.png")
    given = instantiate("stream", settings.stream)
    matrix, names = ask(given, made), [e.name for e in given.experiences]
    document = {
        "affinity": {"name": section["name"], **vars(made)},
        "key": key_of(given, made),
        "stream": given.name,
        "experiences": names,
        "matrix": matrix.tolist(),
    }
    if out is not None:
        write_json(out.expanduser(), document)
    if picture is not None:
        write_picture(matrix, names, f"{section['name']} on {given.name}", picture.expanduser())
    if json_:
        print_json(document)
    else:
        _show(section["name"], given.name, matrix, names)


def write_picture(matrix: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Write an affinity as a heat map.

    Raises:
        BadInput: there is no matplotlib, or it cannot write this file.
    """
    from cl_platform.results.plots import affinity_figure

    try:
        affinity_figure(matrix, names, title).savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {one_line(error)}; give a file such as affinity.png") from error


def _with_settings(section: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the section of an affinity with settings of the runs that it trains."""
    from cl_platform.config import registry
    from cl_platform.config.signatures import describe

    if not settings:
        return section
    known = describe("affinity", registry.load("affinity", section["name"]))["parameters"]
    if "base" not in known:
        raise BadInput(
            f"{min(settings)}: affinity {section['name']!r} trains no runs, which {min(settings)} "
            "would be a setting of; leave it out, or give --by pairwise"
        )
    return {**section, "base": {**settings, **(section.get("base") or {})}}


def _show(by: str, stream: str, matrix: np.ndarray, names: Sequence[str]) -> None:
    from rich.text import Text

    from cl_platform.core.order.affinity import reciprocity
    from cl_platform.tracking.console import new_console

    n = len(names)
    console = new_console()
    console.print(Text.assemble((stream, "bold"), (f" by {by}, {n} experiences\n", "dim")))
    if lines := table(matrix):
        console.print("\n".join(lines), soft_wrap=True)
    pairs = n * (n - 1)
    if pairs:
        console.print(f"\n{_summary(matrix, names)}")
    rho = reciprocity(matrix)
    if rho == rho:  # it is defined
        console.print(f"i to j against j to i: rho {rho:.3f} (1: symmetric)")
    for i, name in enumerate(names[:LISTED]):
        cut = name if len(name) <= 72 else f"{name[:71]}\N{HORIZONTAL ELLIPSIS}"
        console.print(f"{i:4} {cut}", style="dim")


def _summary(matrix: np.ndarray, names: Sequence[str]) -> str:
    rows = matrix.sum(1) / max(1, len(names) - 1)
    best, least = int(rows.argmax()), int(rows.argmin())
    return (
        f"helps the others most: {best} ({rows[best]:.3g} on average), least: {least} "
        f"({rows[least]:.3g})"
    )


def table(matrix: np.ndarray) -> list[str]:
    """Return a matrix as lines of text of at most 80 characters; none if it is too wide."""
    n, largest = len(matrix), float(abs(matrix).max())
    for decimals in range(max(0, 3 - len(str(int(largest)))) if largest else 0, -1, -1):
        cells = [
            ["." if i == j else f"{matrix[i, j]:.{decimals}f}" for j in range(n)] for i in range(n)
        ]
        width = 1 + max(len(str(n)), *(len(cell) for row in cells for cell in row))
        if 5 + n * width <= WIDTH:
            head = "".join(f"{j:>{width}}" for j in range(n))
            rows = ["".join(f"{cell:>{width}}" for cell in row) for row in cells]
            return [f"     {head}", *(f"{i:4} {row}" for i, row in enumerate(rows))]
    return []
