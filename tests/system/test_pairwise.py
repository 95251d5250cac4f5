"""Measured affinities on Ray: the bits and the number of steps are those of one process."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from cl_platform.config.signatures import build
from cl_platform.core.order.affinity import affinity_of, ask

STREAM = build("stream", {"name": "split-digits", "experiences": 5, "validation": 0.15})


def test_workers_train_each_step_once_and_give_the_same_matrix(tmp_path: Path) -> None:
    log = tmp_path / "log"
    strategy = {"name": "tests.helpers.sweep_strategies:Noted", "log": str(log)}
    section = {"name": "pairwise", "base": {"strategy": strategy}, "mask": "task"}
    spread = ask(STREAM, affinity_of({**section, "workers": 2}))
    steps = [line.split(maxsplit=4) for line in log.read_text().splitlines()]
    assert Counter(name for *_, name in steps) == {e.name: 1 + 4 for e in STREAM.experiences}
    assert str(os.getpid()) not in {process for process, *_ in steps}
    log.unlink()
    assert np.array_equal(ask(STREAM, affinity_of(section)), spread)
    assert len(log.read_text().splitlines()) == 5 + 20
