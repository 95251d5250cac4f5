"""The ranks of strategies over streams, and which of them can be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cl_platform.errors import BadInput
from cl_platform.metrics.statistics import LEVEL


@dataclass(frozen=True, eq=False)
class Ranking:
    """Strategies by their mean rank over streams.

    Args:
        names: the best one first.
        ranks: (strategies,) mean ranks in the order of `names`; 1 is best, ties share theirs.
        p: that all are alike, by Friedman's test; by Wilcoxon's signed-rank test of two strategies.
        critical_difference: of two mean ranks that are told apart at 5 % for all pairs together.
        groups: the largest sets of neighbours, two at least, that are not told apart.
        streams: their number.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    p: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]
    streams: int


def rank(table: Mapping[str, Sequence[float]]) -> Ranking:
    """Return the mean ranks of strategies over streams, from one score per stream each.

    Tests of ranks need streams: the p-values are approximations for ten and more.

    Source: Demsar 2006, section 3.2.2 (Friedman's test, Nemenyi's critical difference).

    Raises:
        BadInput: fewer than two strategies or streams, a score too few, or one that is nan.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon

    scores = _table(table)
    k, n = scores.shape
    ranks = rankdata(-scores, axis=0).mean(1)
    order = np.argsort(ranks, kind="stable")
    names, ranks = tuple(list(table)[i] for i in order), ranks[order]
    reach = studentized_range.ppf(LEVEL, k, np.inf) * math.sqrt(k * (k + 1) / (12 * n))
    groups = _neighbours(names, ranks, reach)
    test = friedmanchisquare if k > 2 else wilcoxon
    p = 1.0 if (scores == scores[0]).all() else float(test(*scores).pvalue)
    return Ranking(names, ranks, p, float(reach), groups, n)


def _table(table: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return the scores as an array, (strategies, streams)."""
    lengths = {len(row) for row in table.values()}
    if len(table) < 2 or len(lengths) > 1 or min(lengths) < 2:
        raise BadInput(
            f"{len(table)} strategies with {sorted(lengths)} scores: give two at least of both, "
            "and each strategy one score per stream"
        )
    scores = np.array(list(table.values()), float)
    if np.isnan(scores).any():
        raise BadInput("a score that is nan has no rank: give streams that every strategy has done")
    return scores


def _neighbours(
    names: tuple[str, ...], ranks: np.ndarray, reach: float
) -> tuple[tuple[str, ...], ...]:
    """Return the largest runs of names whose (ascending) ranks are less than `reach` apart."""
    groups = []
    end = 0
    for start, lowest in enumerate(ranks):
        stop = int(np.searchsorted(ranks, lowest + reach))
        if stop > max(end, start + 1):
            groups.append(names[start:stop])
            end = stop
    return tuple(groups)
