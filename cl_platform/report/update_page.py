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
    yield f"<header><h1>Update of run {html.escape(before.run_id)}</h1>"
    strategy = after.config["strategy"]["name"]
    yield paragraph(f"{strategy} on {after.stream}; it went on as run {after.run_id}", soft=True)
    yield f"</header><p class='verdict {kind}'>{update.verdict}</p>"
    if update.requirements:
        rows = [
            (r.measure, "✗ fails" if r in update.failed else "✓ holds", r.words,
             shown(r.measure, measures[r.measure]))
            for r in update.requirements
        ]  # fmt: skip
        yield table(("measure", "", "required", "found"), rows, 2)
    yield "<h2>Accuracy</h2>"
    yield table(("test data", "before", "after", "change"), _accuracies(measures), 1)
    yield "<h2>Flips and cost</h2>"
    others = [(name, m) for name, m in MEASURES.items() if "accuracy" not in name]
    cells = [(name, shown(name, measures[name]), m.meaning) for name, m in others]
    yield table(("measure", "found", "meaning"), cells, 3)
    yield "<h2>Classes that changed</h2>"
    yield from _classes(update)


def _accuracies(measures: dict[str, float]) -> Iterator[tuple[str, ...]]:
    for what in ("old", "new"):
        before, after = measures[f"{what}_accuracy_before"], measures[f"{what}_accuracy"]
        change = shown("old_accuracy_change", after - before)
        yield f"{what} experiences", _percent(before), _percent(after), change
    yield "all", "", _percent(measures["accuracy"]), ""


def _classes(update: Update) -> Iterator[str]:
    changed = update.changed_classes
    if not changed:
        yield paragraph("No test sample of an old experience is judged otherwise than before.")
        return
    head = ("class", "samples", "before", "after", "change", "negative flips", "positive flips")
    rows = [
        (c.name, str(c.samples), _percent(c.before), _percent(c.after),
         shown("worst_class_change", c.change), str(round(c.samples * c.negative_flips)),
         str(round(c.samples * c.positive_flips)))
        for c in changed[:MOST]
    ]  # fmt: skip
    yield table(head, rows, 1)
    if len(changed) > MOST:
        yield paragraph(f"{len(changed) - MOST} more are in update.json.", soft=True)
    yield paragraph(
        "A negative flip is a test sample of an old experience that was right before the update "
        "and is wrong after it (Yan et al. 2021). Test data choose nothing here.",
        soft=True,
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
