"""One run on two processes of this machine, against one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import RunFailed
from cl_platform.models.policy import read_policy
from cl_platform.storage.state_store import StateStore
from tests.strategies.test_scheduled_policy import BASE as POLICY, chosen, write

# 44 samples an experience: a last batch of 4, and a batch of 20 that two processes halve.
STREAM = {"name": "blobs", "experiences": 2, "samples_per_class": 22}
SETTINGS = {
    "stream": STREAM,
    "epochs": 2,
    "batch_size": 7,
    "optimizer": {"name": "adam", "lr": 0.01, "reset": False},
    "accumulate": 2,
    "ema": 0.9,
    "clip_norm": 1.0,
    "schedule": {"name": "CosineAnnealingLR", "interval": "step"},
}


def trained(
    folder: Path, processes: int, strategy: Any, **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    given = {**SETTINGS, "strategy": strategy, "processes": processes, **more}
    plan = make_plan(parse_config(given))
    result = execute(plan, folder)
    state = StateStore(folder / "states").load(plan.keys[-1])
    assert state is not None
    return state.strategy, result.cost


@pytest.mark.parametrize(
    ("strategy", "pacing"),
    [
        ({"name": "er", "memory_size": 30, "memory_batch_size": 5}, None),
        ({"name": "er", "memory_size": 30, "memory_batch_size": 5}, "cyclical"),
        ({"name": "ewc", "strength": 10, "fisher": "batch", "fisher_samples": None}, None),
    ],
    ids=["er", "er-paced", "ewc"],
)
def test_two_processes_learn_what_one_learns(
    strategy: dict[str, Any], pacing: str | None, tmp_path: Path
) -> None:
    (one, cost), (two, shared) = (trained(tmp_path, n, strategy, pacing=pacing) for n in (1, 2))
    assert cost["steps"] == shared["steps"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
        else:
            assert (
                torch.equal(value, two[name])
                if isinstance(value, torch.Tensor)
                else (value == two[name])
            )


def test_all_processes_are_told_the_recorded_accuracies(tmp_path: Path) -> None:
    """They replay what the policy chose, or their parts of a batch would not fit together."""
    path = write(tmp_path / "policy.json", 0.0)
    given = {"strategy": {"name": "scheduled-replay", "policy": path}, "processes": 2}
    result = execute(make_plan(parse_config({**POLICY, **given})), None)
    rows = result.validation["seen"].values
    assert read_policy(path).choose(rows[3, :3].tolist()) == 1  # not what is chosen untold
    told = {"strategy": {"name": "scheduled-replay", "schedule": chosen(result, read_policy(path))}}
    alone = execute(make_plan(parse_config({**POLICY, **told, "processes": 2})), None)
    assert alone.validation == result.validation


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("der++", "DERPlusPlus takes its gradient otherwise than by one backward pass"),
        pytest.param("gem", "GEM takes its gradient otherwise than by", marks=pytest.mark.slow),
        pytest.param("er-ace", "the loss of ERACE on a batch of", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(
    strategy: str, said: str, tmp_path: Path
) -> None:
    plan = make_plan(parse_config({"stream": STREAM, "processes": 2, "strategy": strategy}))
    with pytest.raises(RunFailed) as caught:
        execute(plan, tmp_path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
