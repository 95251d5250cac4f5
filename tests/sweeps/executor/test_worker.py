"""Workers, driven in this process: what a run does to them, and what a strategy of one's own is
asked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cl_platform.config import process
from cl_platform.config.process import Setting
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.results.result import Result
from strategies.baselines import Finetune
from sweeps.executor.driver import own_strategies
from sweeps.executor.pool import task_of
from sweeps.executor.tree import grow
from sweeps.executor.worker import Worker, WorkerConfig
from sweeps.record import Phase
from sweeps.spec import Resources
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER, planned, spec

HELPERS = "tests.helpers.sweep_strategies"


class Careless(Finetune):
    """Changes threads and precision for its whole process."""

    def setup(self, info: Any) -> None:
        super().setup(info)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)

    def forward(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x.float(), task)


def carried_out(out: Path, axes: dict[str, Any], **more: Any) -> Phase:
    """A phase whose runs one worker did, one after the other."""
    given = spec(axes, **more)
    phase = Phase("runs", planned(axes, **more))
    Here(given, out, PLANNER).carry_out(phase)
    return phase


def test_a_strategy_changes_no_other_run_of_its_worker(tmp_path: Path) -> None:
    phase = carried_out(tmp_path, {"strategy": [f"{__name__}:Careless", "finetune", "er"]})
    assert not phase.errors
    for run in phase.runs[1:]:
        result, alone = Result.load(tmp_path / "runs" / run.run_id), execute(make_plan(run.config))
        assert result is not None
        assert (result.run_id, result.metrics) == (alone.run_id, alone.metrics)


def test_a_worker_that_is_spoilt_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(value: int) -> None:
        raise RuntimeError("only once")

    numbers = iter(range(10**6))
    stuck = Setting("its own copy of the world", lambda: next(numbers), refuse)
    monkeypatch.setattr(process, "_settings", lambda: (stuck,))
    worker = Worker(WorkerConfig(tmp_path, "all", 10**9, True, Resources(), {}))
    (root,) = grow(planned())
    outcome = worker.carry_out(task_of([root]))
    assert outcome.spoilt
    assert outcome.error is None
    with pytest.raises(RuntimeError, match="takes no more work"):
        worker.carry_out(task_of([root]))


def test_sys_exit_is_an_error_of_its_run(tmp_path: Path) -> None:
    phase = carried_out(tmp_path, {"strategy": [f"{HELPERS}:Leaving", "finetune"]})
    (error,) = phase.errors.values()
    assert error.startswith("failed at experience 1 of 5: SystemExit: 0 (sweep_strategies.py:")
    assert phase.tally.done == 1


def test_an_interrupt_that_a_strategy_raises_is_an_error_of_its_run(tmp_path: Path) -> None:
    phase = carried_out(tmp_path, {"strategy": [f"{HELPERS}:Interrupting", "finetune"]})
    (error,) = phase.errors.values()
    assert "KeyboardInterrupt (sweep_strategies.py:" in error
    assert phase.tally.done == 1


# --- strategies that cannot share states

FORGETFUL = {"strategy": [f"{HELPERS}:Forgetful"], "curriculum": ["as_given", "reverse"]}


def test_a_strategy_that_remembers_outside_its_buffers_is_refused(tmp_path: Path) -> None:
    message = (
        f"strategy '{HELPERS}:Forgetful' cannot share states: resumed after experience 1 the run "
        "ends with another 'model.*': keep all that is remembered in parameters or buffers; or "
        "give share=false"
    )
    with pytest.raises(ClpError, match=message):
        carried_out(tmp_path, {"strategy": ["finetune", *FORGETFUL["strategy"]]})
    assert not list(tmp_path.glob("runs/*"))  # it was said before anything else


def test_without_sharing_it_may_remember_what_it_likes(tmp_path: Path) -> None:
    phase = carried_out(tmp_path, FORGETFUL, share=False)
    assert phase.tally.done == 2
    for run in phase.runs:
        result = Result.load(tmp_path / "runs" / run.run_id)
        assert result is not None
        assert result.metrics == execute(make_plan(run.config), None).metrics


def test_each_strategy_of_ones_own_is_checked_once(tmp_path: Path) -> None:
    axes = {"strategy": [f"{HELPERS}:Exploding", f"{HELPERS}:Leaving", "er"], "seed": [0, 1]}
    runs = planned(axes)
    driver = Here(spec(axes), tmp_path, PLANNER)
    checked = [root for root in driver.survey(Phase("runs", runs)) if root.check]
    names = [root.run.config.strategy["name"] for root in checked]
    assert names == [f"{HELPERS}:Exploding", f"{HELPERS}:Leaving"]
    assert not [root for root in driver.survey(Phase("again", runs)) if root.check]


@pytest.mark.parametrize(
    ("section", "own"),
    [
        ({"name": "er"}, set()),
        ({"name": "mine.py:X"}, {"mine.py:X"}),
        ({"name": "two-stage", "inner": {"name": "mine.py:X", "of": 1}}, {"mine.py:X"}),
    ],
)
def test_strategies_that_come_with_the_platform_are_not_ones_own(
    section: dict[str, Any], own: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = type("Entry", (), {"value": "strategies.some:Thing"})
    monkeypatch.setattr(
        "sweeps.executor.driver.plugins", lambda kind: {"er": entry, "two-stage": entry}
    )
    assert own_strategies(section) == own
