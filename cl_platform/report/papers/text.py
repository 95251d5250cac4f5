"""Tables for papers as text: Markdown, and LaTeX with the rules of booktabs."""

from __future__ import annotations

import re

from cl_platform.report.papers.contents import Cell, Contents
from cl_platform.report.papers.layout import Layout
from cl_platform.report.tables import literal

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def markdown(table: Contents, layout: Layout) -> str:
    """Return a pipe table, after its caption and before what its numbers are."""
    marks = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}
    rule = ["---"] * table.words + ["---:"] * (len(table.head) - table.words)
    lines = [
        [*map(literal, words), *(marks[cell.mark].format(cell.text) for cell in numbers)]
        for block in table.blocks
        for words, numbers in block
    ]
    caption = [literal(layout.caption), ""] if layout.caption else []
    rows = [f"| {' | '.join(line)} |" for line in ([*map(literal, table.head)], rule, *lines)]
    return "\n".join([*caption, *rows, "", table.note, ""])


def latex(table: Contents, layout: Layout) -> str:
    r"""Return a ``tabular``; with a caption or a label it stands in a ``table``."""
    body: list[str] = []
    for block in table.blocks:
        body += [r"\midrule", *(_line(words, numbers) for words, numbers in block)]
    numbers = len(table.head) - table.words
    lines = [
        rf"\begin{{tabular}}{{{'l' * table.words}{'r' * numbers}}}",
        r"\toprule",
        rf"{' & '.join(map(_escaped, table.head))} \\",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if layout.caption or layout.label:
        caption = rf"\caption{{{_escaped(layout.caption)}}}"
        label = [rf"\label{{{layout.label}}}"] if layout.label else []
        above = [r"\begin{table}[t]", r"\centering", caption, *label]
        lines = [*above, *lines, r"\end{table}"]
    comments = [r"% \usepackage{booktabs}", f"% {' '.join(table.note.split())}"]
    return "\n".join([*comments, *lines, ""])


def _line(words: list[str], numbers: list[Cell]) -> str:
    marks = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
    cells = [*map(_escaped, words), *(marks[c.mark].format(_number(c.text)) for c in numbers)]
    # A bracket after a rule or a line's end would be taken for its optional argument.
    return rf"{'{}' if cells[0].startswith('[') else ''}{' & '.join(cells)} \\"


def _number(text: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", _escaped(text))


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in " ".join(text.split()))
