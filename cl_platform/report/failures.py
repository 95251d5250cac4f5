"""The runs that failed: at the top of a report's page, for they are what to look at first."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from cl_platform.report.runs import Failure, Runs

SHOWN = 5  # of the failed runs; the others are folded
LONGEST = 300  # letters of an error
NUMBERS = re.compile(r"[\d.]+")  # in which errors of one kind differ


def failures(runs: Runs) -> Iterator[str]:
    """Yield how many runs failed, and a line for each; first one for each error."""
    if not runs.failures:
        return
    n, trials = len(runs.failures), sum(not failure.whole for failure in runs.failures)
    of_tuning = f", {trials} of them in tuning" if trials else ""
    count = "1 run failed" if n == 1 else f"{n} runs failed"
    lines = [_line(failure) for failure in _by_novelty(runs.failures)]
    yield f"<section class=failed role=alert><h2>Failed runs</h2><p>{count}{of_tuning}.</p>"
    yield f"<ul>{''.join(lines[:SHOWN])}</ul>"
    if len(lines) > SHOWN:
        yield f"<details><summary>{len(lines) - SHOWN} more</summary>"
        yield f"<ul>{''.join(lines[SHOWN:])}</ul></details>"
    yield "</section>"


def _by_novelty(found: Sequence[Failure]) -> list[Failure]:
    """Return the first run of each error, then the second ones, and so on; trials come last."""
    seen: Counter[str] = Counter()
    places = []
    for failure in found:
        kind = NUMBERS.sub("", failure.error)
        places.append((not failure.whole, seen[kind]))
        seen[kind] += 1
    return [found[i] for i in sorted(range(len(found)), key=lambda i: places[i])]


def _line(failure: Failure) -> str:
    point = ", ".join(f"{key} {value}" for key, value in failure.point.items())
    said = " ".join(failure.error.split())
    said = said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    where = html.escape(point or failure.run_id)
    return f'<li title="run {html.escape(failure.run_id)}">{where}: <b>{html.escape(said)}</b>'
