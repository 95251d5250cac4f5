"""The sections of a report's page that compare strategies: over streams, and on shared seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from cl_platform.metrics.comparison import interquartile_mean
from cl_platform.metrics.ranking import rank
from cl_platform.report.leaderboard import Measure, Row
from cl_platform.report.page import figure, p_value, paragraph, table
from cl_platform.report.pictures import ranking_figure

ACCURACY = Measure("average_accuracy")
MOST_OPEN = 12  # rows of a table that is not folded


def _scores(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows by stream and by their names there."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = ", ".join(filter(None, (row.method, row.curriculum)))
        found.setdefault(row.stream, {})[name] = row
    return found


def over_streams(rows: Sequence[Row]) -> Iterator[str]:
    """Yield ranks over several streams, and a mean that outliers do not move."""
    by_stream = _scores(rows)
    names = [
        n for n in next(iter(by_stream.values())) if all(n in each for each in by_stream.values())
    ]
    if len(by_stream) < 2 or len(names) < 2:
        return
    ranking = rank(
        {n: [each[n].values[ACCURACY.key].value for each in by_stream.values()] for n in names}
    )
    means = {
        n: interquartile_mean([list(each[n].seeds.values()) for each in by_stream.values()])
        for n in names
    }
    data = pd.DataFrame(
        {
            "strategy": ranking.names,
            "rank": ranking.ranks,
            "interquartile mean": [means[n].value for n in ranking.names],
            "low": [means[n].low for n in ranking.names],
            "high": [means[n].high for n in ranking.names],
        }
    )
    lines = [
        [n, f"{place:.2f}", ACCURACY.text(means[n])]
        for n, place in zip(ranking.names, ranking.ranks, strict=True)
    ]
    yield f"<h2>Over {ranking.streams} streams</h2>"
    yield figure(ranking_figure(ranking), "ranks", "Mean ranks", data)
    yield table(["strategy", "mean rank", "interquartile mean of accuracy in %"], lines, words=1)
    yield paragraph(
        f"Ranks by mean accuracy on each stream, 1 is best. All alike: p = {p_value(ranking.p)} "
        f"({'Friedman' if len(names) > 2 else 'Wilcoxon'}). Mean ranks that differ by less than "
        f"{ranking.critical_difference:.2f} are joined (Nemenyi, 5 %). The interquartile mean is "
        "that of the middle half of all seeds and streams.",
        soft=True,
    )


def differences(rows: Sequence[Row]) -> Iterator[str]:
    """Yield each row against the best one of its stream, on the seeds they share."""
    lines = []
    for stream, named in _scores(rows).items():
        best = next(name for name, row in named.items() if row.best and row.difference is None)
        lines += [
            [
                stream,
                name,
                best,
                ACCURACY.text(found.difference),
                "-" if math.isnan(found.effect) else f"{found.effect:.2f}",
                p_value(found.p),
                p_value(row.p),
                str(found.pairs),
            ]
            for name, row in named.items()
            if (found := row.difference) is not None
        ]
    if not lines:
        return
    head = ["stream", "row", "against", "difference in %", "effect", "p", "p (Holm)", "seeds"]
    shown = " open" if len(lines) <= MOST_OPEN else ""
    yield f"<h2>Differences from the best</h2><details{shown}><summary>Paired over seeds</summary>"
    yield table(head, lines, words=3)
    yield paragraph(
        "Mean difference of accuracy on shared seeds with its 95 % interval; effect: in standard "
        "deviations of the differences, Hedges' g; p of the paired t test, and corrected for all "
        "rows of a stream.",
        soft=True,
    )
    yield "</details>"
