"""What a person sees in a terminal."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

import cl_platform as clp
from cl_platform.tracking.console import ConsoleSink, new_console


@pytest.fixture
def terminal() -> Console:
    return new_console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_progress_is_shown_in_a_terminal(terminal: Console) -> None:
    clp.run("split-digits", "er", epochs=3, out=None, sinks=[ConsoleSink(terminal)])
    text = shown(terminal)
    assert "experience 1 of 5" in text
    assert "loss " in text
    for step, name in enumerate(["0 1", "2 3", "4 5", "6 7", "8 9"], 1):
        assert f"{step}  {name} " in text
    assert text.count("mean accuracy so far") == 5


def test_names_are_no_markup(terminal: Console) -> None:
    """`[/INST]` ended the console, "odd [names]" was printed as "odd "."""
    x, y = torch.arange(8, dtype=torch.uint8)[:, None], torch.arange(8) // 2
    names = ["[/INST]", "[red]", ":smile:", "\\[bold]"]
    samples = clp.Samples.of(x, y)
    stream = clp.class_incremental("odd [names]", [[0, 1], [2, 3]], names, samples, samples)
    clp.run(stream, "finetune", out=None, sinks=[ConsoleSink(terminal)])
    text = shown(terminal)
    assert "finetune on odd [names]" in text
    for name in names:
        assert text.count(name) == 2, name  # as progress, and in the matrix


def test_diagnostics_do_not_end_what_is_shown(terminal: Console) -> None:
    settings = {"model": "tiny-transformer", "sinks": [ConsoleSink(terminal)], "out": None}
    clp.run({"name": "split-digits", "samples": 30}, "s-prompts", **settings)
    assert shown(terminal).count("mean accuracy so far") == 5


def test_a_failure_puts_the_terminal_back(terminal: Console) -> None:
    sink = ConsoleSink(terminal)
    with pytest.raises(clp.ClpError):
        clp.run("split-digits", "finetune", lr=1e20, out=None, sinks=[sink])
    assert sink._progress is None


def test_validation_and_undefined_metrics_are_printed(terminal: Console) -> None:
    stream = {"name": "split-digits", "experiences": 1, "validation": 0.2}
    clp.run(stream, "finetune", out=None, sinks=[ConsoleSink(terminal)])
    row = next(line for line in shown(terminal).splitlines() if line.startswith("forgetting"))
    assert row.split() == ["forgetting", "-", "-", "-"]


@pytest.mark.parametrize("width", [1, 20, 60])
def test_a_narrow_terminal_loses_no_number(width: int, terminal: Console) -> None:
    narrow = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    result = clp.run("blobs", "finetune", out=None, sinks=[ConsoleSink(narrow)])
    text = shown(narrow)
    rows = {row[0]: row[1:] for line in text.splitlines() if (row := line.split())}
    assert rows["average_accuracy"][0] == f"{result.metrics['average_accuracy']:.4f}"
    assert rows["5:"][-5:] == [f"{100 * result.matrix[5, j]:.1f}" for j in range(5)]
