"""The report of a sweep: one HTML page that needs nothing else, and its runs as a table."""

from __future__ import annotations

import html
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cl_platform.files import write_atomic
from sweeps.analysis import METRICS, axes_of, by_point, order_effects, order_figure, spread
from sweeps.show import duration

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.api import Sweep

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --line: #d8dce2; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ec; --soft: #99a; --line: #3a3f47; --page: #16181c; }
  figure { background: #fff; border-radius: 6px; padding: 8px; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.soft, td.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
pre { overflow-x: auto; font-size: 13px; border: 1px solid var(--line); padding: 1rem;
  border-radius: 6px; }
div.wide { overflow-x: auto; }
"""


def write_report(sweep: Sweep) -> Path:
    """Write `report.html` and `runs.parquet` into the sweep's folder; returns the page's path."""
    frame = sweep.results()
    if not frame.empty:
        content = io.BytesIO()
        _plain(frame).to_parquet(content)
        write_atomic(sweep.path / "runs.parquet", content.getvalue())
    path = sweep.path / "report.html"
    write_atomic(path, _page(sweep, frame).encode())
    return path


def track(sweep: Sweep) -> None:
    """Log the table and the effect of the order on W&B, as one more run of the sweep's group.

    Whatever goes wrong there costs one line: the sweep is complete without.
    """
    from cl_platform.tracking.wandb_sink import log_sweep, reachable_mode

    frame = sweep.results()
    if frame.empty:
        return
    metrics = [m for m in METRICS if m in frame.columns]
    columns = [*(a.removeprefix("axis.") for a in axes_of(frame)), "runs"]
    columns += [f"{metric} {part}" for metric in metrics for part in ("mean", "sd")]
    rows = [
        [*point, len(group), *(f(group[m]) for m in metrics for f in (_mean, _deviation))]
        for point, group in by_point(frame)
    ]
    effects = order_effects(frame)
    figures = {"order_sensitivity": order_figure(effects)} if effects else {}
    mode: str = sweep.spec.wandb.mode
    try:
        mode = reachable_mode() if mode == "online" else mode
        log_sweep(mode, sweep.path, sweep.spec.name, columns, rows, figures)
    except Exception as error:
        print(f"W&B has no summary: {' '.join(str(error).split())}", file=sys.stderr)


def _mean(values: pd.Series) -> float:
    return float(values.mean())


def _deviation(values: pd.Series) -> float | None:
    return float(values.std()) if len(values) > 1 else None


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """With columns of one type each: what is a mapping or list in some run becomes text."""
    plain = frame.copy()
    for name in plain.columns:
        if plain[name].dtype == object:
            plain[name] = plain[name].map(lambda v: v if v is None else str(v))
    return plain


def _page(sweep: Sweep, frame: pd.DataFrame) -> str:
    parts = [f"<h1>{html.escape(sweep.spec.name)}</h1>", f"<p class=soft>{_overview(sweep)}</p>"]
    for choice in sweep.chosen:
        chosen = ", ".join(f"{k} = {v}" for k, v in choice.point.items())
        parts.append(
            f"<p>Chosen on validation data: <b>{html.escape(chosen)}</b> "
            f"({choice.objective:.4f}, mean of {choice.seeds} seeds).</p>"
        )
    if not frame.empty:
        parts += ["<h2>Results</h2>", f"<div class=wide>{_table(frame)}</div>"]
        parts.append("<p class=soft>In %: mean &plusmn; standard deviation over seeds.</p>")
    effects = order_effects(frame)
    if effects:
        parts += [
            "<h2>Does the order matter?</h2>",
            f"<figure>{_svg(order_figure(effects))}</figure>",
        ]
        parts += [f"<p>{html.escape(str(effect))}.</p>" for effect in effects]
    errors = {e for phase in sweep.phases for e in phase.errors.values()}
    if errors:
        parts.append("<h2>Failed runs</h2>")
        parts += [f"<p>{html.escape(error)}</p>" for error in sorted(errors)]
    spec = yaml.safe_dump(
        sweep.spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False
    )
    parts += ["<h2>Specification</h2>", f"<pre>{html.escape(spec)}</pre>"]
    title = html.escape(sweep.spec.name)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _overview(sweep: Sweep) -> str:
    tally = sweep.phases[-1].tally
    saved = tally.experiences - tally.distinct
    words = [f"{tally.done} of {tally.runs} runs done"]
    words += [f"{tally.failed} failed"] if tally.failed else []
    words.append(
        f"{tally.distinct} experiences instead of {tally.experiences}"
        if saved
        else f"{tally.distinct} experiences"
    )
    return "; ".join([*words, f"last session {duration(sweep.seconds)}"])


def _table(frame: pd.DataFrame) -> str:
    metrics = [m for m in METRICS if m in frame.columns]
    head = "".join(f"<th>{html.escape(a.removeprefix('axis.'))}" for a in axes_of(frame))
    head += "".join(f"<th class=number>{name}" for name in ("runs", *map(METRICS.get, metrics)))
    rows = []
    for point, group in by_point(frame):
        cells = "".join(f"<td>{html.escape(value)}" for value in point)
        numbers = [str(len(group)), *(spread(group[m]) for m in metrics)]
        rows.append(f"<tr>{cells}{''.join(f'<td class=number>{n}' for n in numbers)}")
    return f"<table><thead><tr>{head}<tbody>{''.join(rows)}</table>"


def _svg(figure: Any) -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg")
    text = content.getvalue()
    return text[text.index("<svg") :]
