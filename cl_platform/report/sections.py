"""The sections of a report's page, from the runs of a folder."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from cl_platform._version import __version__
from cl_platform.config.documents import dump
from cl_platform.config.labels import duration
from cl_platform.core.order.affinity import reciprocity
from cl_platform.metrics.improvement import ROPE
from cl_platform.metrics.registry import metrics
from cl_platform.report import pooled, teachers
from cl_platform.report.comparisons import differences, over_streams
from cl_platform.report.failures import failures
from cl_platform.report.leaderboard import Measure, Row, measures_of, page_axes, rows_of
from cl_platform.report.measured import budgets, states
from cl_platform.report.orders import page as orders_page
from cl_platform.report.orders.left_out import left_out
from cl_platform.report.orders.study import studies
from cl_platform.report.page import chart, choice, document, figure, paragraph, table
from cl_platform.report.page_data import page_data
from cl_platform.report.pictures import order_figure
from cl_platform.report.points import order_effects
from cl_platform.report.runs import Runs
from cl_platform.report.tuning import page as tuning
from cl_platform.report.tuning.trials import tuning_of
from cl_platform.results.plots import affinity_figure
from cl_platform.results.result import Result

MATRICES = [("accuracy", "accuracy"), ("calibration", "calibration error")]
PROBES = ("probes", "accuracy of probes")
HELD_OUT = (
    "Held out is what every row scores and nothing trains. A path goes from the untrained model "
    "(open) to the end (large): to the right while knowledge accumulates, down where what was "
    "never learned gets lost. In class-incremental streams it is drawn under the mask task, since "
    "unseen classes score 0 by construction under the mask seen."
)
MANY = 30  # rows, from which on orders are shown together at first


def page(runs: Runs, reload: float = 0, rope: float = ROPE) -> str:
    """Return the whole page, as HTML.

    Args:
        reload: seconds after which it looks for a newer one of itself; 0 if never.
        rope: the difference of accuracy that does not matter.
    """
    rows, together, measures = rows_of(runs), rows_of(runs, together=True), measures_of(runs)
    if len(together) == len(rows):  # there is one order of each
        together = []
    head = [
        f"<header><h1>{html.escape(runs.name)}</h1>",
        paragraph(overview(runs), soft=True),
        "</header>",
        *failures(runs),
    ]
    tuned, pool = tuning_of(runs), pooled.pool(runs)
    tail = [*_specification(runs), *_notes(measures)]
    if not rows:
        again = f'<meta http-equiv="refresh" content="{reload:g}">' if reload else ""
        return document(runs.name, [again, *head, paragraph("No run has ended yet."), *tail])
    parts = [
        *head,
        _filters(rows, together),
        *_leaderboard(rows, together, measures),
        *(tuning.chosen(tuned) if tuned else ()),
        *(pooled.sections(pool) if pool else ()),
        *_charts(rows, measures, runs.results),
        *teachers.sections(rows, runs.results),
        *states.sections(rows, runs.results),
        *budgets.sections(rows, runs.results),
        *over_streams(together or rows, rope),
        *differences(together or rows, rope),
        *_orders(runs),
        *(tuning.sections(tuned) if tuned else ()),
        *_affinities(runs),
        *_runs(),
        *tail,
    ]
    data = page_data(runs, rows, together, measures)
    keys = {m.key for m in measures}
    started = {
        "x1": "forgetting" if "forgetting" in keys else "average_accuracy",  # of one experience
        "y1": _informative(rows, keys),
        "x2": "cost.train_seconds",
        "y2": "average_accuracy",
    }
    data |= {"tuning": tuning.coordinates(tuned) if tuned else [], "pooled": pooled.data(pool)}
    data |= {"axes": started, "together": len(together) > 0 and len(rows) > MANY, "reload": reload}
    return document(runs.name, parts, data)


def _informative(rows: Sequence[Row], keys: Iterable[str]) -> str:
    """Return forward transfer under a mask that shows any: that of unseen classes is 0."""
    for key in ("forward_transfer", "task/forward_transfer"):
        if key in keys and sum(row.values[key].value != 0 for row in rows) > len(rows) / 2:
            return key
    return "learning_accuracy"


def overview(runs: Runs) -> str:
    """Return a line on the progress of the runs."""
    done = f"{len(runs.results)} of {runs.planned} runs done"
    words = [done if runs.sweep else f"{runs.planned} runs"]
    if runs.errors:
        words += [f"{runs.errors.total()} failed"]
    if runs.sweep and not runs.running:
        tally = runs.sweep["phases"][-1]["tally"]
        saved = tally["experiences"] - tally["distinct"]
        instead = f" instead of {tally['experiences']}" if saved else ""
        words += [f"{tally['distinct']} experiences{instead}"]
        words += [f"last session {duration(runs.sweep['seconds'])}"]
    if runs.sweep.get("status", "done") != "done":
        words += [str(runs.sweep["status"])]
    words += [runs.left_out] if runs.left_out else []
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "; ".join([*words, f"written {written} by cl-platform {__version__}"])


def _filters(rows: Sequence[Row], together: Sequence[Row]) -> str:
    def options(values: Iterable[str]) -> list[tuple[str, str]]:
        return [("", "all"), *((v, v) for v in dict.fromkeys(values))]

    lists = [
        choice("stream", "stream", options(row.stream for row in rows)),
        choice("strategy", "strategy", options(row.strategy for row in rows)),
    ]
    curricula = options(row.curriculum for row in rows if row.curriculum)
    if together:
        each = [("together", "all, put together"), ("", "each")]
        lists.append(choice("curriculum", "curriculum", [*each, *curricula[1:]]))
    elif len(curricula) > 2:
        lists.append(choice("curriculum", "curriculum", curricula))
    return f'<nav aria-label="filters">{"".join(lists)}<span id=count></span></nav>'


def _leaderboard(
    rows: Sequence[Row], together: Sequence[Row], measures: Sequence[Measure]
) -> list[str]:
    """Return the table: strategy and accuracy first, which a narrow window shows without
    scrolling."""
    every = [*rows, *together]
    accuracy, *others = [m for m in measures if m.listed]
    axes = page_axes(every)
    first, *rest = [f"<th>{html.escape(axis)}" for axis in axes]
    head = [first, _head(accuracy), *rest, "<th class=number>runs", *map(_head, others)]
    body = []
    for i, row in enumerate(every):
        cells = [f"<td data-axis>{html.escape(row.cell(axis))}" for axis in axes]
        cells[0] += budgets.mark(row)
        numbers = [_number(m, row) for m in others]
        kind = f"{' class=best' if row.best else ''}{' hidden' if i >= len(rows) else ''}"
        body += [
            f'<tr id="row-{i}" data-row={i}{kind}>{cells[0]}{_number(accuracy, row, "first")}',
            *cells[1:],
            f"<td class=number>{len(row.indices)}",
            *numbers,
        ]
    return [
        "<h2>Leaderboard</h2>",
        "<div class='wide tall'><table id=leaderboard>"
        f"<thead><tr>{''.join(head)}<tbody>{''.join(body)}</table></div>",
        "<p class=soft>Mean [95 % interval over seeds]. Bold: the best accuracy of its stream, and "
        "what cannot be told from it (paired over seeds, Holm's correction). Click a head to sort, "
        "a row to see its matrix. <button id=save-leaderboard>CSV</button></p>",
    ]


def _head(measure: Measure) -> str:
    return (
        f'<th class=number tabindex=0 data-key="{html.escape(measure.key)}" '
        f'title="{html.escape(measure.metric.meaning)}">'
        f"{html.escape(measure.name)} <small>{html.escape(measure.unit)}</small>"
    )


def _number(measure: Measure, row: Row, kind: str = "") -> str:
    value, _, interval = measure.text(row.values[measure.key]).partition(" ")
    return f'<td class="number {kind}">{value} <small>{interval}</small>'


def _charts(
    rows: Sequence[Row], measures: Sequence[Measure], results: Sequence[Result]
) -> list[str]:
    held_out = any(result.matrix.held_out for result in results)
    probed = [PROBES] if any(result.probes is not None for result in results) else []
    metrics = [(m.key, m.name) for m in measures if not m.key.startswith("cost.")]
    costs = [(m.key, m.name) for m in measures if m.key.startswith("cost.")]
    return [
        "<div class=pair>",
        chart("curves", "Accuracy while learning"),
        chart(
            "transfer",
            "Forgetting against transfer",
            choice("x1", "across", metrics) + choice("y1", "up", metrics),
        ),
        chart(
            "cost",
            "Cost against accuracy",
            choice("x2", "across", costs) + choice("y2", "up", metrics),
        ),
        chart("trajectory", "Learned against held out, row by row") if held_out else "",
        "</div>",
        paragraph(HELD_OUT, soft=True) if held_out else "",
        "<h2>The chosen row</h2><p id=chosen class=soft></p><div class=pair>",
        chart("matrix", "After each experience", choice("matrix", "", MATRICES + probed)),
        chart("classes", "By class"),
        "</div>",
    ]


def _runs() -> list[str]:
    rest = "".join(f"<th>{name}" for name in ("stream", "curriculum", "seed"))
    return [
        "<h2>Runs</h2>",
        "<div class='wide tall'><table id=runs><thead><tr><th>run<th>strategy"
        f"<th class=number>accuracy{rest}<tbody></table></div><p><button id=more></button></p>",
        "<dialog id=run><p><b id=run-id></b> <button id=close>close</button></p>"
        "<p>The command that repeats it <button id=copy>copy</button></p>"
        "<pre id=run-command></pre>"
        "<div class=chart id=run-matrix></div>"
        "<div id=run-classes><p><label>Classes taken for others "
        "<select id=run-row></select></label> "
        "<button data-of=run-confusion data-save=csv>CSV</button></p>"
        "<div class=chart id=run-confusion></div></div>"
        "<details open><summary>Configuration</summary><pre id=run-config></pre></details>"
        "</dialog>",
    ]


def _orders(runs: Runs) -> list[str]:
    """Return a study of each stream's orders, or, if they are few, their effects."""
    lacking = list(orders_page.missing(left_out(runs)))
    if studied := studies(runs.frame):
        parts = [part for study in studied for part in orders_page.sections(study)]
        return [*parts, *(["<h2>Orders left out</h2>", *lacking] if lacking else [])]
    effects = order_effects(runs.frame)
    if not effects:
        return []
    data = pd.concat(
        [
            pd.DataFrame({"row": e.point, "accuracy": e.means, "sd over seeds": e.deviations})
            for e in effects
        ]
    ).reset_index(names="order")
    return [
        "<h2>Does the order matter?</h2>",
        figure(order_figure(effects), "orders", "Accuracy by order", data),
        *(paragraph(f"{effect}.") for effect in effects),
        *lacking,
    ]


def _affinities(runs: Runs) -> Iterator[str]:
    """Yield the affinities that curricula were made from, as heat maps."""
    for i, found in enumerate(runs.sweep.get("affinities", ())):
        names, matrix = found["experiences"], np.array(found["matrix"])
        title = f"{found['affinity']} on {found['stream']}"
        rows = [(a, b, matrix[j, k]) for j, a in enumerate(names) for k, b in enumerate(names)]
        data = pd.DataFrame(rows, columns=["learned first", "learned after it", "affinity"])
        yield "" if i else "<h2>What helps to learn what</h2>"
        drawn = affinity_figure(matrix, names, title)
        yield figure(drawn, f"affinity-{i}", "Affinity of experiences", data)
        rho = reciprocity(matrix)
        if math.isfinite(rho):
            yield paragraph(f"{title}: i to j against j to i, rho {rho:.2f} (1: symmetric).")


def _specification(runs: Runs) -> Iterator[str]:
    if runs.sweep:
        given = {k: v for k, v in runs.sweep["spec"].items() if v not in (None, [], {})}
        text = html.escape(dump(given))
        yield "<h2>Specification</h2>"
        yield f"<details><summary>The sweep as it was given</summary><pre>{text}</pre></details>"


def _notes(measures: Iterable[Measure]) -> Iterator[str]:
    known = metrics("matrix")
    rows = [[m.name, m.key, m.metric.meaning] for m in measures if m.key in known]
    if rows:
        yield "<h2>Definitions</h2><details><summary>R[i, j] is the accuracy on experience j after "
        yield "i experiences, T of them in all</summary>"
        yield f"{table(['', 'name', 'what'], rows, words=3)}</details>"
