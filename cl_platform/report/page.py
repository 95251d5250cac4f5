"""The parts of a report's page: one file that needs nothing else, in light and dark."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from typing import Any


def document(title: str, parts: Iterable[str], data: Any = None) -> str:
    """Return a page of parts that are HTML already.

    Args:
        data: what its script shows; without any the page has none.
    """
    script = ""
    if data is not None:
        from plotly.offline import get_plotlyjs

        script = f"{embedded('data', data)}<script>{get_plotlyjs()}</script>"
        script += f"<script>{_file('page.js')}</script>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'  # else browsers ask for one
        f"<title>{html.escape(title)}</title><style>{_file('page.css')}</style>"
        f"<body>{''.join(parts)}{script}</body></html>\n"
    )


def _file(name: str) -> str:
    return files("cl_platform.report").joinpath(name).read_text(encoding="utf-8")


def embedded(name: str, data: Any) -> str:
    """Embed data for the page's script; JSON has no nan."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: int,
    *,
    numbers: Collection[int] | None = None,
    sortable: bool = False,
    name: str = "",
) -> str:
    """Return a table of text; all columns but the first `words` hold numbers.

    Args:
        numbers: the columns that do, where these are not the last ones.
        sortable: by clicks on its head; it scrolls by itself where it is long.
        name: of the element.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        right = range(words, len(row)) if numbers is None else numbers
        kinds = [" class=number" if i in right else "" for i in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{html.escape(cell)}" for kind, cell in zip(kinds, row, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}" for row in rows)
    known = f' id="{name}"' if name else ""
    kind, scrolls = (" class=sortable", "'wide tall'") if sortable else ("", "wide")
    whole = f"<thead><tr>{cells('th', head)}<tbody>{body}"
    return f"<div class={scrolls}><table{known}{kind}>{whole}</table></div>"


def figure(made: Any, name: str, title: str, data: Any) -> str:
    """Return a matplotlib figure as part of the page.

    Args:
        name: of the files it is saved as.
        data: a data frame of what it shows.
    """
    from cl_platform.report.tables import csv

    content = io.StringIO()
    made.savefig(content, format="svg")
    text = content.getvalue()
    drawn = f'<div class=drawn id="{name}">{text[text.index("<svg") :]}</div>'
    return _figure(name, title, drawn) + embedded(f"{name}-csv", csv(data))


def chart(name: str, title: str, controls: str = "") -> str:
    """Return a place where the page's script draws."""
    return _figure(name, title, f'<div class=chart id="{name}"></div>', controls)


def _figure(name: str, title: str, drawn: str, controls: str = "") -> str:
    buttons = "".join(
        f'<button data-of="{name}" data-save={kind}>{kind.upper()}</button>'
        for kind in ("svg", "csv")
    )
    caption = f"<figcaption><b>{html.escape(title)}</b>{controls}{buttons}</figcaption>"
    return f"<figure>{caption}{drawn}</figure>"


def choice(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    """Return a list to choose from: (value, text) each."""
    chosen = "".join(
        f'<option value="{html.escape(value)}">{html.escape(text)}' for value, text in options
    )
    select = f'<select aria-label="{name}" data-state="{name}">{chosen}</select>'
    return f"<label>{html.escape(label)} {select}</label>"


def paragraph(text: str, soft: bool = False) -> str:
    return f"<p{' class=soft' if soft else ''}>{html.escape(text)}</p>"


def p_value(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< .001"
