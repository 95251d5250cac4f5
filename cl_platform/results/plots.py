"""Figures of accuracy matrices, by matplotlib; the methods ``plot_*`` of a result call them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import BadInput
from cl_platform.metrics.matrix_metrics import accuracy_so_far
from cl_platform.metrics.zero_shot import adapted_and_held_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN = 20  # experiences whose accuracies are written into a heat map
NAMED = 10  # experiences with a line, or a name, of their own
MOST_NAMES, LETTERS = 40, 22  # beside a heat map of affinities; letters of each
LARGEST = 16.0  # inches of a side: streams of hundreds of experiences have figures as well


def matrix_figure(matrix: AccuracyMatrix, title: str) -> Figure:
    """Draw the accuracy matrix as a heat map."""
    values = 100 * matrix.values
    rows, columns = values.shape
    figure = new_figure(2.5 + 0.55 * columns, 1.6 + 0.45 * rows)
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    every = _every(columns)
    axes.set_xticks(range(columns)[::every], [str(j + 1) for j in range(columns)[::every]])
    every = _every(rows - 1)
    axes.set_yticks(
        range(rows)[::every], ["untrained", *(str(k) for k in matrix.rows[every::every])]
    )
    axes.set_xlabel("experience, in the order of learning")
    axes.set_ylabel("after experience")
    if matrix.visits != tuple(range(columns)):  # each row's own experience is marked
        own = [matrix.visits[k - 1] for k in matrix.rows[1:]]
        axes.plot(own, range(1, rows), "s", markersize=4, color="white", markeredgecolor="black")
        axes.set_xlabel("experience; what a row has just learned is marked")
        axes.set_ylabel("after step")
    if matrix.held_out:  # drawn apart
        axes.axvline(columns - len(matrix.held_out) - 0.5, color="white", linewidth=4)
        axes.set_xlabel(f"{axes.get_xlabel()}; behind the line, held out")
    axes.set_title(literal(f"{title}: accuracy in %"), fontsize=9)
    if columns <= WRITTEN:
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value < 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes)
    return figure


def accuracy_figure(matrix: AccuracyMatrix, title: str) -> Figure:
    """Draw the mean accuracy on what was learned so far, and each experience's own."""
    values = 100 * matrix.values
    n, after = len(matrix), matrix.rows
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    steps = len(matrix.visits)
    for j, i in zip(*matrix.learned("first"), strict=True) if n <= NAMED else ():
        axes.plot(after[i:], values[i:, j], color="0.7", marker=".", linewidth=1)
        axes.annotate(str(j + 1), (after[i], values[i, j]), color="0.5", fontsize=8, va="bottom")
    mean = [100 * accuracy for accuracy in accuracy_so_far(matrix)]
    axes.plot(after[1:], mean, color="C0", marker="o", label="mean of those learned so far")
    if matrix.held_out:
        zero_shot = values[:, list(matrix.held_out)].mean(1)
        axes.plot(after, zero_shot, color="C1", linestyle="--", label="mean of those held out")
    unit = "experiences" if steps == n else "slices"
    axes.set(xlabel=f"{unit} learned", ylabel="accuracy in %", ylim=(-2, 102))
    axes.set_xticks(range(1, steps + 1, _every(steps)))
    _finish(axes, title)
    return figure


def trajectory_figure(matrix: AccuracyMatrix, title: str) -> Figure:
    """Draw accuracy on what is held out against that on all that is learned, a point a row.

    Source: Roth et al. 2024 (FoMo-in-Flux).

    Raises:
        BadInput: nothing is held out.
    """
    if not matrix.held_out:
        raise BadInput("nothing is held out of this stream: give it stream.held_out")
    learned, held_out = 100 * adapted_and_held_out(matrix).T
    figure = new_figure(5.4, 4.2)
    axes = figure.subplots()
    axes.plot(learned, held_out, marker=".", color="C0")
    axes.plot(learned[0], held_out[0], "o", color="white", markeredgecolor="C0", label="untrained")
    axes.plot(learned[-1], held_out[-1], "o", color="C0", label="at the end")
    axes.set(
        xlabel="accuracy on all that is learned in %", ylabel="accuracy on what is held out in %"
    )
    _finish(axes, title)
    return figure


def forgetting_figure(matrix: AccuracyMatrix, title: str) -> Figure:
    """Draw for each experience the accuracy once learned and at the end."""
    values, n = 100 * matrix.values, len(matrix)
    columns, rows = matrix.learned()
    last, learned = values[-1], np.full(n, np.nan)  # some may never be learned
    learned[columns] = values[rows, columns]
    figure = new_figure(2 + 0.5 * n, 3.8)
    axes = figure.subplots()
    axes.vlines(range(n), last, learned, color="0.75", linewidth=4)
    axes.plot(range(n), learned, "o", color="C0", label="once learned")
    axes.plot(range(n), last, "o", color="C3", label="at the end")
    names = [str(j + 1) for j in range(n)]
    if n <= NAMED:
        names = [f"{j + 1}: {name}"[:20] for j, name in enumerate(matrix.names)]
    shown = slice(None, None, _every(n))
    axes.set_xticks(range(n)[shown], names[shown], rotation=35, ha="right", parse_math=False)
    axes.set(ylabel="accuracy in %", ylim=(-2, 102))
    _finish(axes, title)
    return figure


def class_accuracy_figure(accuracies: np.ndarray, title: str) -> Figure:
    """Draw accuracy by class at the end, with what it was at best.

    Args:
        accuracies: (T+1, n_classes), row 0 before training.
    """
    values = 100 * accuracies
    n = values.shape[1]
    figure = new_figure(3 + 0.25 * n, 3.8)
    axes = figure.subplots()
    axes.bar(range(n), values[-1], color="C0", label="at the end")
    axes.plot(range(n), values[1:].max(axis=0), "_", color="0.5", label="at best")
    axes.set(xlabel="class", ylabel="accuracy in %", ylim=(0, 102))
    _finish(axes, title)
    return figure


def affinity_figure(matrix: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draw an affinity as a heat map with white for 0: rows are sources, columns targets.

    Args:
        matrix: (T, T); its diagonal, which says nothing, stays empty.
    """
    n = len(names)
    values = np.where(np.eye(n, dtype=bool), np.nan, matrix)
    reach = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    figure = new_figure(4.2 + 0.5 * n, 3.2 + 0.45 * n)
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    image = axes.imshow(values, cmap="RdBu", vmin=-reach, vmax=reach)
    shown = slice(None, None, 1 + (n - 1) // MOST_NAMES)
    cut = f"{{:.{LETTERS - 1}}}\N{HORIZONTAL ELLIPSIS}"
    short = [name if len(name) <= LETTERS else cut.format(name) for name in names]
    turned: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n)[shown], short[shown], parse_math=False, **turned)
    axes.set_yticks(range(n)[shown], short[shown], parse_math=False)
    axes.set(xlabel="learned after it", ylabel="learned first")
    axes.set_title(literal(title), fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if n <= NAMED:
        for i, j in permutations(range(n), 2):
            colour = "white" if abs(values[i, j]) > 0.6 * reach else "black"
            text = f"{values[i, j]:.0f}" if reach >= 100 else f"{values[i, j]:.2g}"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8, label="the higher, the more it helps")
    return figure


def literal(name: str) -> str:
    """Escape dollars, which matplotlib reads as mathematics."""
    return name.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, each side at most LARGEST."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no global state, no display
    except ImportError as error:
        raise BadInput("pictures need matplotlib: install the extra `report`") from error
    size = min(width, LARGEST), min(height, LARGEST)
    return Figure(figsize=size, layout="constrained")


def _every(n: int) -> int:
    """Return the step between labelled items of an axis with n of them: some 20 have room."""
    return 1 + (n - 1) // WRITTEN


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(literal(title), fontsize=9)
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
