"""Tables for papers: what stands in them, as LaTeX, Markdown and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from cl_platform.engine.execution import execute
from cl_platform.errors import BadInput
from cl_platform.report.leaderboard import measures_of, rows_of, shown_axes
from cl_platform.report.papers.contents import MOST_ROWS, Contents, contents
from cl_platform.report.papers.layout import Layout
from cl_platform.report.papers.picture import table_figure
from cl_platform.report.points import by_point
from cl_platform.report.render import render
from cl_platform.report.runs import Runs, read_runs
from sweeps.record import Phase, write_sweep
from tests.cli.test_cli import Clp
from tests.helpers.report_runs import HOSTILE, changed, many_runs, one_run, put
from tests.helpers.sweep_runs import PLANNER, planned, spec

# Accuracy in % by stream and strategy, over seeds: er and der cannot be told apart on "a", where
# finetune follows; on "b" der is best, er follows.
ACCURACY = {
    "a": {"er": (80, 84, 82), "der": (81, 82, 80), "finetune": (50, 51, 52)},
    "b": {"er": (40, 41, 42), "der": (60, 61, 62.5), "finetune": (20, 20.5, 21)},
}


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """The document of a real run, to be changed."""
    return one_run()


def filled(out: Path, model: Mapping[str, Any], accuracy: Mapping[str, Any]) -> Runs:
    """Runs with these accuracies in %; they forget as much as they are below 100 %."""
    for stream, strategies in accuracy.items():
        for strategy, values in strategies.items():
            for seed, value in enumerate(values):
                number = hash((stream, strategy, seed)) % 2**40
                data = changed(model, number, strategy={"name": strategy}, seed=seed)
                data["config"]["stream"], data["stream"] = {"name": stream}, stream
                lost = {"average_accuracy": value / 100, "forgetting": 1 - value / 100}
                data["metrics"] = {**data["metrics"], **lost, "task/average_accuracy": 0.9}
                put(out, data)
    return read_runs(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: dict[str, Any]) -> Runs:
    return filled(tmp_path_factory.mktemp("papers"), model, ACCURACY)


def numbers(table: Contents) -> list[list[list[tuple[str, str]]]]:
    return [[[(c.text, c.mark) for c in cells] for _, cells in block] for block in table.blocks]


# --- contents


def test_the_best_within_noise_and_the_next_one_are_marked_in_each_column(runs: Runs) -> None:
    table = contents(runs, Layout(("accuracy", "forgetting"), digits=1, spread="sd"))
    assert table.head == ["stream", "strategy", "accuracy (%)", "forgetting (%)"]
    assert [[words for words, _ in block] for block in table.blocks] == [
        [["a", "er"], ["a", "der"], ["a", "finetune"]],
        [["b", "der"], ["b", "er"], ["b", "finetune"]],
    ]
    assert numbers(table) == [
        [
            [("82.0 ± 2.0", "best"), ("18.0 ± 2.0", "best")],
            [("81.0 ± 1.0", "best"), ("19.0 ± 1.0", "best")],
            [("51.0 ± 1.0", "second"), ("49.0 ± 1.0", "second")],
        ],
        [
            [("61.2 ± 1.3", "best"), ("38.8 ± 1.3", "best")],
            [("41.0 ± 1.0", "second"), ("59.0 ± 1.0", "second")],
            [("20.5 ± 0.5", ""), ("79.5 ± 0.5", "")],
        ],
    ]
    assert table.note.startswith("Mean ± standard deviation over 3 seeds; bold: ")


def test_by_stream_a_strategy_has_a_line_and_a_stream_a_column(runs: Runs) -> None:
    table = contents(runs, Layout(by="stream", spread="none", digits=0))
    assert sorted(table.head[1:]) == ["a", "b"]
    found = {
        words[0]: {s: (c.text, c.mark) for s, c in zip(table.head[1:], cells, strict=True)}
        for words, cells in table.blocks[0]
    }
    assert list(found) == ["der", "er", "finetune"]  # by their means over streams
    assert found == {
        "der": {"a": ("81", "best"), "b": ("61", "best")},
        "er": {"a": ("82", "best"), "b": ("41", "second")},
        "finetune": {"a": ("51", "second"), "b": ("20", "")},
    }
    assert table.note.startswith("accuracy (%). Mean over 3 seeds; ")
    less = contents(runs, Layout(("forgetting",), by="stream"))
    assert [words[0] for words, _ in less.blocks[0]] == ["der", "er", "finetune"]


def test_intervals_are_those_of_the_leaderboard(runs: Runs) -> None:
    table = contents(runs, Layout())
    listed = [m for m in measures_of(runs) if m.listed]
    assert table.head == [*shown_axes(rows_of(runs)), *(m.title for m in listed)]
    cells = [[text for text, _ in line] for block in numbers(table) for line in block]
    rows = rows_of(runs)
    assert cells == [[m.text(row.values[m.key]) for m in listed] for row in rows]
    best = [line[0][1] == "best" for block in numbers(table) for line in block]
    assert best == [row.best for row in rows]
    costs = [j for j, m in enumerate(listed) if m.key.startswith("cost.")]
    assert costs
    assert not any(line[j][1] for block in numbers(table) for line in block for j in costs)


def test_other_masks_are_columns_as_well_and_what_is_not_there_is_said(runs: Runs) -> None:
    table = contents(runs, Layout(("task/average_accuracy",), digits=2, spread="none"))
    assert {c for block in numbers(table) for line in block for c, _ in line} == {"90.00"}
    with pytest.raises(BadInput, match=r"^column 'accuray': .*Did you mean 'average_accuracy'"):
        contents(runs, Layout(("accuray",)))


def test_a_single_seed_has_no_spread_and_a_stream_may_lack_a_strategy(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    runs = filled(tmp_path, model, {"a": {"er": (60,), "ewc": (70,)}, "b": {"er": (50,)}})
    table = contents(runs, Layout(by="stream", spread="sd"))
    at = table.head.index("b")
    shown = {words[0]: [c.text for c in cells] for words, cells in table.blocks[0]}
    assert shown["ewc"][at - 1] == "-"
    assert {*shown["er"]} == {"60.0", "50.0"}
    assert list(shown) == ["er", "ewc"]  # what has all streams stands first
    assert table.note.startswith("accuracy (%). Mean over 1 seed; ")


def test_a_long_table_puts_orders_together(tmp_path: Path) -> None:
    runs = read_runs(put(tmp_path, *many_runs(540)))
    assert len(by_point(runs.frame)) > MOST_ROWS
    lines = table_of(render(runs, "markdown").decode())[1:]
    assert len(lines) == len(rows_of(runs, together=True)) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"columns": "accuracy"}, "columns='accuracy'"),
        ({"spread": "se"}, "spread='se': give one of interval, sd, none"),
        ({"by": "seed"}, "by='seed'"),
        ({"digits": -1}, "digits=-1"),
    ],
)
def test_a_layout_is_checked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(said)}"):
        Layout(**given)


# --- Markdown


def table_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table, as a reader sees them."""
    html = MarkdownIt("commonmark").enable("table").render(text)
    tags = set(re.findall(r"<[/!]*(\w*)", html))
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "strong", "ins", "p"}
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    found = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"</?(strong|ins)>", "", cell)) for cell in row] for row in found]


def test_markdown_is_the_table(runs: Runs) -> None:
    layout = Layout(("accuracy",), spread="sd", caption="100 % *as given*")
    text = render(runs, "markdown", layout).decode()
    assert text.startswith("100 % \\*as given\\*\n\n| stream | strategy | accuracy (%) |\n")
    assert table_of(text)[1] == ["a", "er", "82.0 ± 2.0"]
    assert "| a | er | **82.0 ± 2.0** |\n" in text
    assert "| b | er | <ins>41.0 ± 1.0</ins> |\n" in text


@pytest.fixture
def hostile(tmp_path: Path, model: dict[str, Any]) -> Runs:
    odd = [changed(model, i, strategy={"name": n}) for i, n in enumerate([*HOSTILE, "a\nb"])]
    return read_runs(put(tmp_path, *odd))


def test_hostile_names_are_text_in_markdown(hostile: Runs) -> None:
    lines = table_of(render(hostile, "markdown").decode())[1:]
    wanted = [row.cell("strategy").replace("\n", " ") for row in rows_of(hostile)]
    assert [line[0] for line in lines] == wanted
    assert len({len(line) for line in lines}) == 1


# --- LaTeX

LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    # These are other characters in the font that LaTeX has unless told otherwise.
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def is_sound(text: str) -> None:
    """Holds what LaTeX needs: as many cells in each line as columns, all that opens closes."""
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    lines = [line for line in inside.splitlines() if not line.endswith("rule")]
    assert all(line.endswith(r" \\") for line in lines)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    plain = re.sub(r"\$(-|\\pm)\$", "", inside)
    assert not re.search(r"(?<!\\)[%$#_~^<>|]", plain)
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert re.findall(r"\\end\{(\w+)\}", text) == opened[::-1]


def test_latex_is_the_table(runs: Runs) -> None:
    layout = Layout(("accuracy",), 1, "sd", "row", "Accuracy in %, 3_seeds", "tab:main-1")
    text = render(runs, "latex", layout).decode()
    is_sound(text)
    comments, body = text.splitlines()[:2], text.splitlines()[2:]
    assert comments[0] == r"% \usepackage{booktabs}"
    assert comments[1].startswith("% Mean ± standard deviation over 3 seeds; bold: the best")
    assert body == [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{Accuracy in \%, 3\_seeds}",
        r"\label{tab:main-1}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r"stream & strategy & accuracy (\%) \\",
        r"\midrule",
        r"a & er & \textbf{82.0 $\pm$ 2.0} \\",
        r"a & der & \textbf{81.0 $\pm$ 1.0} \\",
        r"a & finetune & \underline{51.0 $\pm$ 1.0} \\",
        r"\midrule",
        r"b & der & \textbf{61.2 $\pm$ 1.3} \\",
        r"b & er & \underline{41.0 $\pm$ 1.0} \\",
        r"b & finetune & 20.5 $\pm$ 0.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    alone = render(runs, "latex").decode()
    is_sound(alone)
    assert "table}" not in alone


@pytest.mark.parametrize("character", LATEX)
def test_special_characters_are_text_in_latex(
    tmp_path: Path, model: dict[str, Any], character: str
) -> None:
    runs = read_runs(put(tmp_path, changed(model, 1, strategy={"name": f"a{character}b"})))
    text = render(runs, "latex").decode()
    (line,) = [line for line in text.splitlines() if line.startswith("a") and "&" in line]
    assert line.startswith(f"a{LATEX[character]}b & ")


def test_hostile_names_break_no_latex(hostile: Runs) -> None:
    for by in ("row", "stream"):
        is_sound(render(hostile, "latex", Layout(by=by, caption="".join(HOSTILE))).decode())


def test_latex_takes_no_list_for_an_argument(tmp_path: Path) -> None:
    r"""After ``\\`` and ``\midrule`` a bracket begins an optional argument, a length."""
    runs = planned({"model.hidden": [[4], [5]], "strategy": ["finetune", "er"]})
    write_sweep(tmp_path, spec(), [Phase("runs", runs)], "done")
    for run in runs:
        execute(PLANNER(run.config, run.order), tmp_path, keep="none")
    lines = render(read_runs(tmp_path), "latex").decode().splitlines()
    assert sum(line.count("[4]") + line.count("[5]") for line in lines) == 4
    assert not any(line.lstrip().startswith("[") for line in lines)


def test_a_negative_number_has_a_minus(tmp_path: Path, model: dict[str, Any]) -> None:
    data = changed(model, 1)
    data["metrics"]["forgetting"] = -0.0123
    runs = read_runs(put(tmp_path, data))
    assert r"\textbf{$-$1.2} \\" in render(runs, "latex", Layout(("forgetting",))).decode()
    assert "**-0** |" not in render(runs, "markdown", Layout(("forgetting",), 0)).decode()


# --- pictures


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1


def test_a_picture_has_the_text_of_the_table_and_room_for_all_of_it(runs: Runs) -> None:
    layout = Layout(("accuracy", "forgetting"), spread="sd", caption="$x_1$ is no formula here")
    table = contents(runs, layout)
    figure = table_figure(table, layout)
    shown = [text.get_text() for text in figure.texts]
    lines = [c.text for block in table.blocks for _, cells in block for c in cells]
    assert {*table.head, *lines, layout.caption} <= {*shown}
    boxes = [text.get_window_extent().extents for text in figure.texts]
    width, height = figure.get_size_inches() * figure.dpi
    assert all(b[0] >= 0 and b[2] <= width and b[1] >= 0 and b[3] <= height for b in boxes)
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    bold = [t.get_text() for t in figure.texts if t.get_fontweight() == "bold"]
    marked = [c for block in table.blocks for _, cells in block for c in cells]
    assert bold == [c.text for c in marked if c.mark == "best"]
    underlined = sum(c.mark == "second" for c in marked)
    assert len(figure.artists + figure.lines) == underlined + 4  # rules


def test_pictures_are_written_beside_the_runs(clp: Clp, runs: Runs) -> None:
    code, out, err = clp("report", str(runs.folder), "--format", "png", "--columns", "accuracy")
    assert (code, out, err) == (0, f"{runs.folder / 'table.png'}\n", "")
    assert (runs.folder / "table.png").read_bytes().startswith(b"\x89PNG")
    small = Layout(by="stream", spread="none")
    assert render(runs, "svg", small).startswith(b"<?xml")
    assert render(runs, "pdf", small).startswith(b"%PDF")


def test_the_command_line_lays_out_as_python_does(clp: Clp, runs: Runs) -> None:
    layout = Layout(("forgetting",), 2, "none", "stream", "A caption", "t")
    code, out, err = clp(
        "report", str(runs.folder), "--format", "latex", "--columns", "forgetting", "--digits", "2",
        "--spread", "none", "--by", "stream", "--caption", "A caption", "--label", "t",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.encode() == render(runs, "latex", layout)


def test_without_matplotlib_the_extra_is_named(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_platform.results import plots

    def gone() -> None:
        raise ImportError("matplotlib")

    monkeypatch.setattr(plots, "_shown", gone)
    with pytest.raises(BadInput, match="install the extra `report`"):
        render(runs, "png")
