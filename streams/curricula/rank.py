"""``clp rank``: orders of a stream by the scores of a designer, or by an affinity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cl_platform.cli.app import overridden, print_json
from cl_platform.errors import BadInput, one_line

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

LABELLED = 40  # the largest number of items whose names are shown
WRITTEN, TICK = 12, 22  # the same for written distances; letters of a name beside the picture


def rank(
    *,
    stream: str | None = None,
    curriculum: str = "designer",
    affinity: str | None = None,
    scenario: str | None = None,
    top: int = 10,
    bottom: int = 3,
    figure: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    config: Annotated[list[Path] | None, Parameter(name=["--config"], negative="")] = None,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Rank the orders of a stream by a predicted score, before anything is trained.

    Parameters
    ----------
    stream
        Stream to learn, for example split-mnist (default: split-digits).
    curriculum
        Source of the scores: designer, linear_ordering or useful_first. Set its parameters by --set
        curriculum.distance=ot etc.
    affinity
        Rank by linear_ordering of this affinity: logme, leep, ...; see clp affinity.
    scenario
        class, task or domain, where the stream has a choice.
    top
        Orders with the highest scores to show.
    bottom
        Orders with the lowest scores to show.
    figure
        Write the distances or affinities of experiences as a picture (.png, .svg, .pdf).
    set_
        Any setting by its dotted key, key=value; may be repeated.
    config
        A YAML file with settings; flags and --set win.
    json_
        Print one JSON document and nothing else.
    """
    section: Any = curriculum
    if affinity is not None:
        name = "linear_ordering" if curriculum == "designer" else curriculum
        section = {"name": name, "affinity": affinity}
    flags = {"stream": stream, "curriculum": section, "scenario": scenario}
    data = overridden(config or [], flags, set_ or [])

    from rich.text import Text

    from cl_platform.cli.affinity import write_picture
    from cl_platform.config.labels import label
    from cl_platform.config.run_config import parse_config
    from cl_platform.config.signatures import instantiate
    from cl_platform.core.order.affinity import is_symmetric
    from cl_platform.core.order.curriculum import arrange
    from cl_platform.tracking.console import Whole, new_console
    from streams.curricula import designer, transfer
    from streams.curricula.designed import Designer
    from streams.curricula.designer import EXHAUSTIVE, variances
    from streams.curricula.transfer import Scored

    if top < 1 or bottom < 0:
        raise BadInput(f"top={top}, bottom={bottom}: give at least one for top, and 0 for bottom")
    figure = figure.expanduser() if figure is not None else None
    if figure is not None and (not figure.suffix or os.path.isdir(figure)):
        raise BadInput(f"figure={figure}: give a file such as distances.png")
    settings = parse_config(data)
    chosen = instantiate("curriculum", settings.curriculum)
    if not isinstance(chosen, Designer | Scored):
        raise BadInput(
            f"curriculum {settings.curriculum['name']!r} ranks no orders: give designer, "
            "linear_ordering or useful_first"
        )
    given = instantiate("stream", settings.stream).without_test_data()
    if isinstance(chosen, Scored):
        matrix, of_what = chosen.matrix(given), label(chosen.affinity)
        ranked = partial(transfer.ranked, chosen.gains(matrix))
        alike = ", which is symmetric: all orders are equal" if is_symmetric(matrix) else ""
        about = f"affinity {of_what}{alike}"
    else:
        matrix, of_what = chosen.distances(given), chosen.distance
        ranked = partial(designer.ranked, matrix)
        about = f"{of_what} distances of {chosen.encoder}"
    names = given.class_names if chosen.level == "classes" else [e.name for e in given.experiences]
    best, worst = ranked(top), ranked(bottom, worst=True)
    arrange(given, chosen.level, best[0][1])  # raises where classes cannot be ordered
    if figure is not None and isinstance(chosen, Scored):
        write_picture(matrix, names, f"{of_what} on {given.name}", figure)
    elif figure is not None:
        _write_figure(matrix, names, f"{of_what} distance", figure)
    if json_:
        document: dict[str, Any] = {
            "stream": given.name,
            "curriculum": settings.curriculum,
            "items": list(names),
            "exhaustive": len(names) <= EXHAUSTIVE,
            "top": [{"rank": i, "score": s, "order": o} for i, (s, o) in enumerate(best, 1)],
            "bottom": [{"rank": -i, "score": s, "order": o} for i, (s, o) in enumerate(worst, 1)],
        }
        if isinstance(chosen, Scored):
            document["affinity"] = matrix.tolist()
        else:
            document |= {"variances": variances(matrix).tolist(), "distances": matrix.tolist()}
        print_json(document)
        return

    console = new_console()
    kind = "local" if isinstance(chosen, Scored) else "beam"
    search = "all orders scored" if len(names) <= EXHAUSTIVE else f"the best of a {kind} search"
    about = f"{len(names)} {chosen.level}; {about}; {search}"
    console.print(Text.assemble((given.name, "bold"), " ", (about, "dim"), "\n"))
    above = [order for _, order in best]  # of few orders the worst are among the best
    below = [found for found in worst if found[1] not in above]
    console.print(Whole(_table(best, below)), crop=False)
    if len(names) <= LABELLED:
        legend = "\n".join(f"{i:4} {shortened(name, 72)}" for i, name in enumerate(names))
        console.print(f"\n{chosen.level}\n{legend}", style="dim")
    if figure is not None:
        console.print(f"\n{figure}", style="dim", soft_wrap=True)


Ranked = Sequence[tuple[float, list[int]]]


def _table(best: Ranked, worst: Ranked) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("order", overflow="fold")
    lowest = [(-i, *found) for i, found in enumerate(worst, 1)]
    for number, score, order in [*((i, *found) for i, found in enumerate(best, 1)), *lowest[::-1]]:
        table.add_row(str(number), f"{score:.4f}", " ".join(map(str, order)))
    return table


def shortened(name: str, width: int) -> str:
    """Cut a name to `width` characters."""
    return name if len(name) <= width else f"{name[: width - 1]}\N{HORIZONTAL ELLIPSIS}"


def _write_figure(matrix: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Write a matrix of distances as a heat map.

    Raises:
        BadInput: there is no matplotlib, or it cannot write this file.
    """
    try:
        _heat_map(matrix, names, title).savefig(path, dpi=150)
    except ImportError as error:
        raise BadInput(f"figure={path} needs {error.name}: install the extra `report`") from error
    except (OSError, ValueError) as error:
        raise BadInput(
            f"figure={path}: {one_line(error)}; give a file such as distances.png"
        ) from error


def _heat_map(matrix: np.ndarray, names: Sequence[str], title: str) -> Any:
    """Draw the distances between items as a matplotlib figure."""
    from matplotlib.figure import Figure

    n = len(names)
    size = min(12.0, 3.0 + 0.45 * n)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="viridis_r")
    figure.colorbar(image, ax=axes, shrink=0.8, label=title)
    if n <= LABELLED:
        short = [shortened(name, TICK) for name in names]
        turned: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(n), short, parse_math=False, **turned)
        axes.set_yticks(range(n), short, parse_math=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if n <= WRITTEN:
        for i, j in permutations(range(n), 2):
            colour = "white" if matrix[i, j] > matrix.max() / 2 else "black"
            text = f"{matrix[i, j]:.2g}"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    return figure
