"""Lanes: runs that differ in their seed, trained side by side.

The MLP of two layers of 100 on Split-MNIST with experience replay, 64+64: 1, 8 and 32 seeds side by
side against the same runs one after the other. CPU time, one thread.
"""

from __future__ import annotations

from benchmarks.measure import Effort, Goal, NotMeasured, Row

LANES = (1, 8, 32)
GOALS = {8: Goal("at most", 0.65)}


def measure(effort: Effort) -> list[Row]:
    raise NotMeasured("runs cannot be trained side by side yet")
