"""Searches by Ray Tune, as far as they go without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_platform.errors import ClpError
from sweeps.executor.driver import Driver
from sweeps.record import Phase
from sweeps.tuning.ray_tune import search
from tests.helpers.sweep_runs import PLANNER, VALIDATED, spec


def test_a_strategy_that_cannot_share_states_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    forgetful = {"name": "tests.helpers.sweep_strategies:Forgetful"}
    given = spec(
        {"strategy": ["finetune", forgetful], "lr": {"loguniform": [0.01, 0.1]}},
        base={"stream": VALIDATED},
        tune={"method": "asha", "trials": 2},
    )
    with pytest.raises(ClpError, match=r"Forgetful' cannot share states: .* or give share=false"):
        search(Driver(given, tmp_path, PLANNER), Phase("tune", []))
    assert not list(tmp_path.iterdir())
