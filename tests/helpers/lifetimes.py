"""Logs of lifetimes written by hand, block by block, and one of their figures."""

from __future__ import annotations

import numpy as np

from cl_platform.metrics.lifelong import lifelong_metrics
from cl_platform.metrics.lifelong.logs import Block, LifelongLog


def train(task: str, *curve: float) -> Block:
    return Block(task, "train", np.array(curve, float))


def evaluate(task: str, *values: float) -> Block:
    return Block(task, "evaluation", np.array(values, float))


def log_of(*blocks: Block, unit: bool = True) -> LifelongLog:
    """A log whose raw values are mapped to themselves plus 1, or else by its own extremes."""
    return LifelongLog(blocks, value_range=(0.0, 100.0) if unit else None)


def lifetime(log: LifelongLog, name: str, *experts: LifelongLog) -> float:
    return lifelong_metrics(log, experts)[f"lifelong.{name}"]
