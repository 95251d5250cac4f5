"""The console of a sweep: its plan, its progress, and a table at the end."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cl_platform.config.labels import duration
from cl_platform.metrics.registry import find_metric
from cl_platform.report.orders.pairs import pair_effects, pair_sentences
from cl_platform.report.orders.study import Study, verdict
from cl_platform.report.points import METRICS, for_table, order_effects, spread
from cl_platform.results.load import read_results
from cl_platform.tracking.console import Whole
from sweeps.planning import Run, values_of
from sweeps.record import Phase, Tally
from sweeps.spec import ORDER_METHODS
from sweeps.tuning.policy_search import about as about_policy

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.api import Preview, Sweep
    from sweeps.executor.driver import Driver, OnTick

SHOWN_ROWS, SHOWN_ERRORS, SHOWN_VALUES = 24, 5, 8
AT_A_LOOK = 20  # results that are read for the best so far, once a second
LINE_SECONDS = 30.0  # between lines where there is no terminal
BAR, NAME = 40, 12  # columns of the progress


class Progress:
    """Shows the progress of a phase: in place on a terminal, elsewhere as a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._counted = self._printed = self._began
        self._phase: Phase | None = None
        self._ahead = 0
        self._best = Best()
        self._live: Live | None = None

    def of(self, driver: Driver) -> OnTick:
        """Return the function that the driver calls."""
        driver.begin = lambda phase: self._begin(driver, phase)
        return lambda phase: self._tick(driver, phase)

    def _begin(self, driver: Driver, phase: Phase) -> None:
        """Print what will be run, and that Ray is starting, which takes half a minute at worst."""
        self.close()
        if phase.runs:  # else a method draws them one by one
            self.console.print(_count(len(phase.runs), "run") + _named(phase))
            self.console.print(Whole(grid(values_of(phase.runs))), crop=False)
        if driver.pool is None:
            self.console.print("starting Ray ...", style="dim")

    def _tick(self, driver: Driver, phase: Phase) -> None:
        now = time.monotonic()
        if phase is not self._phase:
            self._phase, self._began, self._ahead = phase, now, 0
            self._best = Best()
        if now - self._counted >= 1:  # looks at files
            self._counted, self._ahead = now, driver.in_flight()
            if self.console.is_terminal:
                self._best.look(driver.out, phase)
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, transient=True, refresh_per_second=4)
                self._live.start()
            self._live.update(self._picture(phase, _waiting(driver)))
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            # It fits into 80 columns: the end shows what sharing saved.
            trained = _trained(phase.tally, self._ahead)
            line = f"{_runs(phase.tally)}; {trained}; {self._left(phase.tally)}"
            self.console.print(_waiting(driver) or line, soft_wrap=True)

    def close(self) -> None:
        """Take the progress off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self, phase: Phase, waiting: str) -> Text:
        tally = phase.tally
        done = tally.known + tally.trained + self._ahead
        share = min(1.0, done / max(1, tally.distinct))
        filled = int(BAR * share)
        text = Text(f"{phase.name:<{NAME}}")
        text.append("━" * filled, style="green")
        text.append("━" * (BAR - filled), style="bright_black")
        text.append(f" {share:4.0%}  {waiting or self._left(tally)}\n")
        text.append(f"{'':{NAME}}{_runs(tally)}\n", style="dim")
        saved = tally.experiences - tally.distinct
        sharing = f", {saved} of {tally.experiences} saved by sharing" if saved else ""
        text.append(f"{'':{NAME}}{_trained(tally, self._ahead)}{sharing}", style="dim")
        if best := str(self._best):
            text.append(f"\n{'':{NAME}}{best}")
        return text

    def _left(self, tally: Tally) -> str:
        """Estimate the time left, at the pace so far."""
        done = tally.trained + self._ahead
        elapsed = time.monotonic() - self._began
        if not done or elapsed < 1:
            return "time left unknown"
        pace = elapsed / done
        return f"{duration(pace * (tally.distinct - tally.known - done))} left"


class Best:
    """The best point so far, by its mean over seeds: of the validation accuracy while tuning, since
    test data decide nothing, else of the final average accuracy."""

    def __init__(self) -> None:
        self._looked: set[str] = set()
        self._found: dict[str, list[float]] = {}

    def look(self, out: Path, phase: Phase) -> None:
        """Take in runs that have ended since the last look, some dozen at a time."""
        new = [r for r in phase.runs if r.run_id in phase.done and r.run_id not in self._looked]
        new = new[:AT_A_LOOK]
        self._looked |= {run.run_id for run in new}
        for run in new if phase.name == "tune" else ():
            value = phase.metrics.get(run.run_id, {}).get("validation/average_accuracy")
            self._add(run, value)
        if phase.name in ("runs", "final"):
            points = {run.run_id: run for run in new}
            for result in read_results(out, [*points]) if points else ():
                self._add(points[result.run_id], result.metrics["average_accuracy"])

    def _add(self, run: Run, value: float | None) -> None:
        if value is not None and math.isfinite(value):
            point = " ".join(text for axis, text in run.point.items() if axis != "seed")
            self._found.setdefault(point, []).append(value)

    def __str__(self) -> str:
        if not self._found:
            return ""
        mean = {point: sum(values) / len(values) for point, values in self._found.items()}
        best = max(mean, key=mean.__getitem__)
        runs = _count(len(self._found[best]), "run")
        room = 80 - NAME - len(f"best so far 100.0 %, {runs}: ")
        point = best if len(best) <= room else f"{best[: room - 3]}..."
        return f"best so far {100 * mean[best]:.1f} %, {runs}{f': {point}' if point else ''}"


def grid(values: Mapping[str, Sequence[str]]) -> Table:
    """Tabulate the axes of runs, in the order in which they are varied, each with its values."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for axis, texts in values.items():
        table.add_row(f"  {axis}", listed(texts))
    return table


def listed(texts: Sequence[str]) -> str:
    """Return the values of an axis, the first of many."""
    more = f", ... {len(texts)} in all" if len(texts) > SHOWN_VALUES else ""
    return ", ".join(texts[:SHOWN_VALUES]) + more


def _named(phase: Phase) -> str:
    return "" if phase.name == "runs" else f" ({phase.name})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _waiting(driver: Driver) -> str:
    """Return a note while no worker has started: the cluster may be full."""
    missing = driver.pool is not None and not driver.pool.started()
    return "waiting for workers" if missing else ""


def _runs(tally: Tally) -> str:
    failed = f", {tally.failed} failed" if tally.failed else ""
    kept = f" ({tally.kept} kept)" if tally.kept else ""
    return f"runs {tally.done} of {tally.runs} done{kept}{failed}"


def _trained(tally: Tally, ahead: int) -> str:
    done = tally.known + tally.trained + ahead
    return f"experiences {done} of {tally.distinct} trained"


def plan(preview: Preview, console: Console) -> None:
    """Print the plan of a sweep."""
    tally = preview.tally
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    axes = " x ".join(f"{k} {values}" for k, values in preview.axes.items())
    table.add_row("axes", axes or "none")
    for axis, texts in preview.values.items():
        table.add_row("", f"{axis}: {listed(texts)}")
    kept = f", {tally.kept} done before" if tally.kept else ""
    table.add_row("runs", f"{tally.runs}{kept}")
    saved = tally.experiences - tally.distinct
    known = f", {tally.known} trained before" if tally.known else ""
    table.add_row(
        "experiences",
        f"{tally.distinct} to train ({tally.experiences} one by one, {saved} shared){known}",
    )
    asked = ", ".join(f"{name} {amount:g}" for name, amount in preview.resources.items())
    table.add_row("resources", f"{asked} for each run; {preview.workers} at a time")
    runs, most = preview.lanes
    beside = [f"{runs} runs, up to {most} side by side in a worker"] if runs else []
    if preview.no_lanes:
        beside.append(f"{'others ' if runs else ''}one by one: {preview.no_lanes}")
    if beside:
        table.add_row("lanes", "; ".join(beside))
    about = f"about {duration(preview.seconds or 0)}, judged by a short trial here"
    elsewhere = "unknown: the device is not on this machine"
    table.add_row("time", elsewhere if preview.seconds is None else about)
    if preview.then:
        table.add_row("then", preview.then)
    title = Text.assemble((preview.name, "bold"), (f" in {preview.path}", "dim"))
    console.print(title, soft_wrap=True)
    console.print(table)


def outcome(sweep: Sweep, console: Console) -> None:
    """Print the results of a sweep."""
    for choice in sweep.chosen:
        group = " ".join(choice.group.values())
        own = [f"{k}={v}" for k, v in choice.point.items() if v != choice.group.get(k)]
        seeds = f"{choice.seeds} seeds" if choice.seeds > 1 else "1 seed"
        chosen = f": {', '.join(own) or 'its defaults'} "
        about = f"(validation {choice.objective:.4f}, {seeds})"
        console.print(Text.assemble("chosen for ", (group, "bold"), chosen, (about, "dim")))
        if (tried := _tried(sweep, choice.group)) is not None:
            console.print(f"  {tried}", style="dim")
    frame = sweep.runs.frame.copy()
    if not frame.empty:
        console.print()
        console.print(results_table(frame))
        _about_orders(sweep, frame, console)
    for phase in sweep.phases:
        for error, n in Counter(phase.errors.values()).most_common(SHOWN_ERRORS):
            failed = f"{n} of {phase.tally.runs} runs failed:"
            console.print(Text.assemble((failed, "red"), f" {error}"))
    console.print()
    for phase in sweep.phases:
        tally = phase.tally
        saved = tally.experiences - tally.distinct
        sharing = f", {saved} saved by sharing" if saved else ""
        known = f", {tally.known} known before" if tally.known else ""
        trained = f"{tally.trained} experiences trained{sharing}{known}"
        name = "" if phase.name == "runs" else f"{phase.name}: "
        console.print(f"{name}{_runs(tally)}; {trained}", style="dim")
    if sweep.stopped is not None:
        console.print(f"stopped: {sweep.stopped}; the same command goes on", style="yellow")
    console.print(f"{duration(sweep.seconds)}; {sweep.path}", style="dim", soft_wrap=True)


def _tried(sweep: Sweep, group: Mapping[str, str]) -> str | None:
    """Return what a search over orders tried in a group, or what a policy learned."""
    if sweep.spec.tune is None or sweep.spec.tune.method not in (*ORDER_METHODS, "policy"):
        return None
    trials = [t for phase in sweep.phases for t in phase.trials if t["group"] == group]
    if sweep.spec.tune.method == "policy":
        return about_policy(trials)
    longest = max(len(trial["values"]["curriculum"]) for trial in trials)
    whole = [t for t in trials if len(t["values"]["curriculum"]) == longest]
    found = [value for trial in whole for value in trial["objectives"] if value is not None]
    return (
        f"{len(whole)} whole orders tried: validation {min(found):.4f} to {max(found):.4f}, "
        f"mean {sum(found) / len(found):.4f}"
    )


def _about_orders(sweep: Sweep, frame: pd.DataFrame, console: Console) -> None:
    """Print the effect of the orders, and where there are many if their scores predict it."""
    found = sweep.studies()
    if not found:
        for effect in order_effects(frame):
            console.print(str(effect), style="dim")
    for study in found:
        orders = f": {len(study.points[0].orders)} orders"
        console.print(Text.assemble("\n", (study.stream, "bold"), orders))
        console.print(_orders_table(study))
        for number, score in enumerate(study.scores, 1):
            console.print(f"rho {number}: {verdict(study, score)}", style="dim")
        for point in study.points:
            pairs = {"average_accuracy": pair_effects(point.orders, point.means)}
            console.print(pair_sentences(point, pairs, study.items), style="dim")


def _orders_table(study: Study) -> Table:
    """Tabulate the worst and best order, shares of the variance, and rho with each score."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    numbers = ["worst", "best", "by order", "by seed", "by both"]
    for name in [*numbers, *(f"rho {i + 1}" for i in range(len(study.scores)))]:
        table.add_column(name, justify="right", no_wrap=True)
    for point in study.points:
        shares = point.shares.get("average_accuracy")
        parts = shares.parts if shares else ()
        table.add_row(
            point.point,
            *(f"{100 * order.accuracy.value:.1f}" for order in (point.worst, point.best)),
            *([f"{100 * part.value:.0f} %" for part in parts] or ["-"] * 3),
            *(
                f"{p.correlation.rho:.2f}"
                for p in point.predictions
                if p.outcome == "average_accuracy"
            ),
        )
    return table


def results_table(frame: pd.DataFrame) -> Table:
    """Tabulate mean and standard deviation over seeds, one row per point, best first."""
    axes, groups = for_table(frame, SHOWN_ROWS)
    metrics = [m for m in METRICS if m in frame.columns]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for axis in axes:
        table.add_column(axis, overflow="fold")
    table.add_column("runs", justify="right")
    for metric in metrics:
        table.add_column(find_metric(metric).title, justify="right", no_wrap=True)
    shown = groups if len(groups) <= SHOWN_ROWS else groups[: SHOWN_ROWS - 3] + groups[-3:]
    for i, (point, group) in enumerate(shown):
        if len(shown) < len(groups) and i == SHOWN_ROWS - 3:
            table.add_row(f"... {len(groups) - len(shown)} more")
        cells = [spread(group[metric]) for metric in metrics]
        table.add_row(*point, str(len(group)), *cells)
    return table
