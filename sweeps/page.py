"""What HTML pages are made of: one file that needs nothing else, in light and dark."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --line: #d8dce2; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ec; --soft: #99a; --line: #3a3f47; --page: #16181c; }
  figure { background: #fff; border-radius: 6px; padding: 8px; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 64rem; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.soft, td.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; }
th.number, td.number { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
pre { overflow-x: auto; font-size: 13px; border: 1px solid var(--line); padding: 1rem;
  border-radius: 6px; }
div.wide { overflow-x: auto; } summary { cursor: pointer; color: var(--soft); margin: .6rem 0; }
@media print { details:not([open]) > * { display: block; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML already."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><body>{''.join(parts)}"
        "</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """A table of text; all columns but the first `words` hold numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = ["" if i < words else " class=number" for i in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{html.escape(cell)}" for kind, cell in zip(kinds, row, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}" for row in rows)
    return f"<div class=wide><table><thead><tr>{cells('th', head)}<tbody>{body}</table></div>"


def figure(made: Any) -> str:
    """A matplotlib figure as part of the page."""
    content = io.StringIO()
    made.savefig(content, format="svg")
    text = content.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>"


def paragraph(text: str, soft: bool = False) -> str:
    return f"<p{' class=soft' if soft else ''}>{html.escape(text)}</p>"
