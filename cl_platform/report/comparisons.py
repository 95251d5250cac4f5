"""The sections of a report's page that compare strategies: over streams, and on shared seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from cl_platform.metrics.comparison import interquartile_mean
from cl_platform.metrics.improvement import (
    ROPE,
    Equivalence,
    Groups,
    equivalence_over_streams,
    performance_profile,
    practical_equivalence,
    probability_of_improvement,
)
from cl_platform.metrics.ranking import rank
from cl_platform.report.leaderboard import Measure, Row
from cl_platform.report.page import figure, p_value, paragraph, table
from cl_platform.report.pictures import BANDS, profiles_figure, ranking_figure

ACCURACY = Measure("average_accuracy")
DRAWN = 8  # profiles, the best ranks
POINTS = 201  # of a profile
WORSE_TO_BETTER = "worse / same / better %"
OPEN = 30  # rows of differences, up to which they are shown at once


def _scores(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows by stream and by their names there."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = ", ".join(filter(None, (row.method, row.curriculum)))
        found.setdefault(row.stream, {})[name] = row
    return found


def over_streams(rows: Sequence[Row], rope: float = ROPE) -> Iterator[str]:
    """Yield comparisons over several streams: ranks, means that outliers do not move, how often one
    beats the best, and the whole distribution of scores.

    Args:
        rope: the difference of accuracy that does not matter.
    """
    by_stream = _scores(rows)
    names = [
        n for n in next(iter(by_stream.values())) if all(n in each for each in by_stream.values())
    ]
    if len(by_stream) < 2 or len(names) < 2:
        return
    each_stream = list(by_stream.values())
    means = {n: [each[n].values[ACCURACY.key].value for each in each_stream] for n in names}
    groups = {n: [list(each[n].seeds.values()) for each in each_stream] for n in names}
    ranking = rank(means)
    middles = {n: interquartile_mean(groups[n]) for n in ranking.names}
    data = pd.DataFrame(
        {
            "strategy": ranking.names,
            "rank": ranking.ranks,
            "interquartile mean": [found.value for found in middles.values()],
            "low": [found.low for found in middles.values()],
            "high": [found.high for found in middles.values()],
        }
    )
    ranks = dict(zip(ranking.names, ranking.ranks, strict=True))
    best = min(ranks, key=lambda n: (ranks[n], -middles[n].value))
    lines = []
    for n, place in ranks.items():
        found = equivalence_over_streams(np.subtract(means[n], means[best]), rope)
        wins = probability_of_improvement(groups[n], groups[best])
        against = ["-", "-"] if n == best else [str(wins), _shares(found)]
        lines.append([n, f"{place:.2f}", ACCURACY.text(middles[n]), *against])
    yield f"<h2>Over {ranking.streams} streams</h2><div class=pair>"
    yield figure(ranking_figure(ranking), "ranks", "Mean ranks", data)
    yield _profiles({n: groups[n] for n in ranking.names[:DRAWN]})
    yield "</div>"
    yield table(["strategy", "rank", "IQM in %", "P(better)", WORSE_TO_BETTER], lines, words=1)
    yield paragraph(
        f"Ranks by mean accuracy on each stream, 1 is best. All alike: p = {p_value(ranking.p)} "
        f"({'Friedman' if len(names) > 2 else 'Wilcoxon'}). Mean ranks that differ by less than "
        f"{ranking.critical_difference:.2f} are joined (Nemenyi, 5 %). IQM: interquartile mean "
        "accuracy, that of the middle half of all seeds and streams. P(better): how often one of "
        f"its runs is better than one of {best} on the same stream, mean over streams. "
        f"{_meaning(rope)} on another stream (Bayesian signed-rank test). Profiles of the best "
        f"{min(DRAWN, len(names))}, bands of the best {min(BANDS, len(names))} (pointwise, 95 % "
        "over seeds).",
        soft=True,
    )


def _meaning(rope: float) -> str:
    points = "1 point" if rope == 0.01 else f"{100 * rope:g} points"
    return f"Worse / same / better: how probable a difference of more than {points} is, or of less,"


def _shares(found: Equivalence) -> str:
    """Return probabilities in %, as 93 / 6 / 1."""
    if math.isnan(found.alike):
        return "-"
    return " / ".join(f"{100 * p:.0f}" for p in (found.worse, found.alike, found.better))


def _profiles(groups: Mapping[str, Groups]) -> str:
    """Return the performance profiles as a figure."""
    scores = np.concatenate([part for parts in groups.values() for part in parts])
    taus = np.linspace(max(0, scores.min() - 0.02), scores.max() + 0.01, POINTS)
    profiles = {n: performance_profile(parts, taus) for n, parts in groups.items()}
    data = pd.concat(
        pd.DataFrame({"strategy": n, "tau": p.taus, "share": p.value, "low": p.low, "high": p.high})
        for n, p in profiles.items()
    )
    return figure(profiles_figure(profiles), "profiles", "Performance profiles", data)


def differences(rows: Sequence[Row], rope: float = ROPE) -> Iterator[str]:
    """Yield each row against the best one of its stream, on the seeds they share.

    Args:
        rope: the difference of accuracy that does not matter.
    """
    lines = []
    for stream, named in _scores(rows).items():
        best = next(name for name, row in named.items() if row.best and row.difference is None)
        lines += [
            [
                stream,
                f"{name} against {best}",
                ACCURACY.text(found.difference),
                "-" if math.isnan(found.effect) else f"{found.effect:.2f}",
                p_value(found.p),
                p_value(row.p),
                *_against(row, named[best], rope),
                str(found.pairs),
            ]
            for name, row in named.items()
            if (found := row.difference) is not None
        ]
    if not lines:
        return
    head = ["stream", "row", "difference in %", "effect", "p", "p (Holm)"]
    head += ["P(better)", WORSE_TO_BETTER, "seeds"]
    shown = " open" if len(lines) <= OPEN else ""
    yield f"<h2>Differences from the best</h2><details{shown}><summary>Paired over seeds</summary>"
    yield table(head, lines, words=2)
    yield paragraph(
        "Mean difference of accuracy on shared seeds with its 95 % interval; effect: in standard "
        "deviations of the differences, Hedges' g; p of the paired t test, and corrected for all "
        "rows of a stream. P(better): how often one of the row's runs is better than one of the "
        f"best. {_meaning(rope)} on average over seeds (Bayesian t test). --rope sets the points.",
        soft=True,
    )
    yield "</details>"


def _against(row: Row, best: Row, rope: float) -> list[str]:
    """Return how often a row's runs are better than the best one's, and how probable it is that
    their difference matters."""
    wins = probability_of_improvement([[*row.seeds.values()]], [[*best.seeds.values()]])
    pairs = [score - best.seeds[seed] for seed, score in row.seeds.items() if seed in best.seeds]
    return [str(wins), _shares(practical_equivalence(pairs, rope))]
