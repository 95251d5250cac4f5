"""The figures of a result: the numbers on their axes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from cl_platform import Result
from cl_platform.errors import BadInput
from tests.helpers.report_runs import HOSTILE, one_run

SIZES = [1, 3, 50, 300]
KINDS = ("matrix", "accuracy", "forgetting")


def made_up(experiences: int, seed: int = 0) -> Result:
    """A real result with other numbers, different under each mask."""
    rng = np.random.default_rng(seed)
    data = one_run(2)
    first = data["experiences"][0]
    data["experiences"] = [
        {**first, "identity": f"{i:02d}", "name": f"name {i}"} for i in range(experiences)
    ]
    data["order"] = list(range(experiences))
    shape = (experiences + 1, experiences)
    data["matrix"] = {m: rng.uniform(size=shape).tolist() for m in data["matrix"]}
    data["calibration"] = data["class_accuracy"] = None
    return Result.from_json(data)


def plot(result: Result, kind: str, *mask: str) -> Any:
    return getattr(result, f"plot_{kind}")(*mask)


def values(result: Result, mask: str) -> np.ndarray:
    return 100 * result.matrices[mask].values


def lines(figure: Any) -> dict[str, tuple[list[float], list[float]]]:
    """The lines with a label, by it."""
    (axes,) = figure.axes
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


@pytest.mark.parametrize("experiences", SIZES)
@pytest.mark.parametrize("mask", ["seen", "task", "all"])
def test_the_matrix_has_its_numbers(experiences: int, mask: str) -> None:
    result = made_up(experiences)
    figure = plot(result, "matrix", mask)
    axes = figure.axes[0]
    wanted = values(result, mask)
    assert np.array_equal(axes.images[0].get_array(), wanted)
    assert axes.images[0].get_clim() == (0, 100)
    written = {t.get_position(): t.get_text() for t in axes.texts}
    if experiences <= 20:
        assert written == {(j, i): f"{wanted[i, j]:.0f}" for i, j in np.ndindex(*wanted.shape)}
    else:
        assert written == {}, "too many to be read"
    ticks = [t.get_text() for t in axes.get_yticklabels()]
    every = {50: 3, 300: 15}.get(experiences, 1)
    assert ticks == ["untrained", *(str(i) for i in range(every, experiences + 1, every))]
    assert mask in axes.get_title()


@pytest.mark.parametrize("experiences", SIZES)
@pytest.mark.parametrize("mask", ["seen", "task", "all"])
def test_accuracy_is_the_mean_of_what_was_learned(experiences: int, mask: str) -> None:
    result = made_up(experiences)
    figure = plot(result, "accuracy", mask)
    wanted = values(result, mask)
    ((x, y),) = lines(figure).values()
    assert x == list(range(1, experiences + 1))
    assert y == pytest.approx([wanted[i, :i].mean() for i in x])
    own = [line for line in figure.axes[0].get_lines() if line.get_label().startswith("_")]
    assert len(own) == (experiences if experiences <= 10 else 0)
    for j, line in enumerate(own):
        assert list(line.get_xdata()) == list(range(j + 1, experiences + 1))
        assert line.get_ydata() == pytest.approx(wanted[j + 1 :, j])


@pytest.mark.parametrize("experiences", SIZES)
@pytest.mark.parametrize("mask", ["seen", "task", "all"])
def test_forgetting_is_between_two_points(experiences: int, mask: str) -> None:
    result = made_up(experiences)
    figure = plot(result, "forgetting", mask)
    wanted = values(result, mask)
    learned = [wanted[j + 1, j] for j in range(experiences)]
    drawn = lines(figure)
    assert drawn["once learned"] == (list(range(experiences)), pytest.approx(learned))
    assert drawn["at the end"] == (list(range(experiences)), pytest.approx(wanted[-1]))
    (bars,) = figure.axes[0].collections
    for j, segment in enumerate(bars.get_segments()):
        assert sorted(segment[:, 1]) == pytest.approx(sorted([learned[j], wanted[-1, j]]))
    names = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert names[0] == ("1: name 0" if experiences <= 10 else "1")
    assert len(names) == min(
        experiences, 1 + (experiences - 1) // {50: 3, 300: 15}.get(experiences, 1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_stream_has_a_figure_of_bounded_size(kind: str) -> None:
    """One of 300 experiences had 25,125 x 20,557 pixels."""
    for side in plot(made_up(300), kind).get_size_inches():
        assert side <= 16


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mask_it_is_the_scenarios_own(kind: str) -> None:
    result = made_up(3)
    assert result.scenario == "class"
    assert drawn(plot(result, kind)) == drawn(plot(result, kind, "seen"))
    assert drawn(plot(result, kind)) != drawn(plot(result, kind, "task"))


def drawn(figure: Any) -> list[list[float]]:
    axes = figure.axes[0]
    images = [image.get_array().ravel().tolist() for image in axes.images]
    return images + [list(map(float, line.get_ydata())) for line in axes.get_lines()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("experiences", SIZES)
def test_they_can_be_saved(kind: str, experiences: int) -> None:
    content = io.BytesIO()
    plot(made_up(experiences), kind).savefig(content, format="svg")  # warnings are errors here
    assert b"</svg>" in content.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_joint_result_has_figures(kind: str) -> None:
    from cl_platform import run

    result = run({"name": "blobs", "experiences": 3}, "joint", out=None)
    plot(result, kind).savefig(io.BytesIO())
    if kind == "accuracy":
        ((_, y),) = lines(plot(result, kind)).values()
        assert y[-1] == pytest.approx(100 * result.metrics["average_accuracy"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["sene", "own", "validation"])
def test_an_unknown_mask_is_one_line(kind: str, mask: str) -> None:
    with pytest.raises(BadInput) as caught:
        plot(made_up(2), kind, mask)
    (line,) = str(caught.value).splitlines()
    assert f"mask={mask!r}" in line
    assert "seen, task, all" in line


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_no_mathematics(kind: str) -> None:
    data = one_run(3)
    data["stream"] = "$x_1$ and $"
    data["config"]["strategy"]["name"] = "$\\frac$"
    for experience, name in zip(data["experiences"], HOSTILE, strict=True):
        experience["name"] = name
    figure = plot(Result.from_json(data), kind)
    figure.savefig(io.BytesIO(), format="svg")
    assert "$x_1$" in figure.axes[0].get_title().replace("\\$", "$")
