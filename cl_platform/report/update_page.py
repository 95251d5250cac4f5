"""The page of an update: whether it may go out, and what it gained and lost."""

from __future__ import annotations

import html
from collections.abc import Iterator

from cl_platform.core.json_text import json_text
from cl_platform.report.page import document, paragraph, table
from cl_platform.results.update import MEASURES, Update, shown
from cl_platform.storage.files import write_atomic

MOST = 30  # classes in the table


def save(update: Update) -> None:
    """Write `update.html` and `update.json` into the folder of the updated run."""
    assert update.after.path is not None
    write_atomic(update.after.path / "update.json", (json_text(update.to_json()) + "\n").encode())
    write_atomic(update.after.path / "update.html", page(update).encode())


def page(update: Update) -> str:
    """Return the whole page, as HTML."""
    return document(f"Update of {update.before.run_id}: {update.verdict}", _parts(update))


def _parts(update: Update) -> Iterator[str]:
    before, after, measures = update.before, update.after, update.measures
    kind = {"go": "go", "no-go": "stop"}.get(update.verdict, "open")
    yield f"<header><h1>{html.escape(after.stream)}</h1>"
    strategy = after.config["strategy"]["name"]
    yield paragraph(f"run {before.run_id} went on as {after.run_id}; {strategy}", soft=True)
    yield f"</header><p class='verdict {kind}'>{update.verdict}</p>"
    if update.requirements:
        rows = [
            ("✗ fails" if r in update.failed else "✓ holds", r.measure, r.words,
             shown(r.measure, measures[r.measure]))
            for r in update.requirements
        ]  # fmt: skip
        yield table(("", "measure", "required", "found"), rows, 2)
    yield "<h2>Accuracy and cost</h2>"
    rows_ = [(name, m.meaning, shown(name, measures[name])) for name, m in MEASURES.items()]
    yield table(("measure", "meaning", "value"), rows_, 2)
    yield "<h2>Classes that changed</h2>"
    changed = update.changed_classes
    if not changed:
        yield paragraph("No test sample of an old class is predicted otherwise than before.")
        return
    head = ("class", "samples", "before", "after", "change", "negative flips", "positive flips")
    cells = [
        (c.name, str(c.samples), f"{100 * c.before:.1f} %", f"{100 * c.after:.1f} %",
         f"{100 * c.change:+.1f} %", str(round(c.samples * c.negative_flips)),
         str(round(c.samples * c.positive_flips)))
        for c in changed[:MOST]
    ]  # fmt: skip
    yield table(head, cells, 1)
    if len(changed) > MOST:
        yield paragraph(f"{len(changed) - MOST} more are in update.json.", soft=True)
    yield paragraph(
        "A negative flip is a test sample that was right before the update and is wrong after it "
        "(Yan et al. 2021). Test data choose nothing: they are scored once before and once after.",
        soft=True,
    )
