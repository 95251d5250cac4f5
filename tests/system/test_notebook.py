"""A real notebook: what its cells put out, and how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system.browser import Visits

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = (
    "import cl_platform as clp\n"
    "result = clp.run('split-digits', 'er', model={'name': 'mlp', 'hidden': [16]}, epochs=3)\n"
    "result",
    "import numpy as np\nsaid = result.predict(np.zeros((2, 1, 8, 8), np.uint8))\nsaid.names",
)
THEMES = {"light": "background:#fff;color:#111", "dark": "background:#111;color:#ddd"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """The outputs of the cells."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_cell_has_its_bar_and_its_result_and_nothing_else(outputs: list[list[Any]]) -> None:
    bar, result = outputs[0]
    assert bar.output_type == "display_data"
    assert bar.data["text/html"] == ""  # gone when the run has ended
    assert "<b>er</b> on <b>split-digits</b>" in result.data["text/html"]
    (names,) = outputs[1]
    assert names.output_type == "execute_result"


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("theme", THEMES)
def test_it_can_be_read(
    theme: str, width: int, outputs: list[list[Any]], tmp_path: Path, visit: Visits
) -> None:
    html = outputs[0][1].data["text/html"]
    path = tmp_path / "cell.html"
    style = f"margin:16px;{THEMES[theme]}"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body style="{style}">{html}')
    page = visit(path, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [table.bounding_box() for table in page.locator("table").all()]
    assert len(boxes) == 2
    assert all(box is not None for box in boxes)
    matrix, metrics = boxes
    beside = metrics["x"] > matrix["x"]  # type: ignore[index]
    assert beside == (width > 1000)
    shades = page.evaluate(
        "[...document.querySelectorAll('td')].filter(c => c.style.background).map(c =>"
        " [getComputedStyle(c).backgroundColor, getComputedStyle(c).color])"
    )
    assert len(shades) == 30
    assert all(colour in ("rgb(255, 255, 255)", "rgb(0, 0, 0)") for _, colour in shades)
