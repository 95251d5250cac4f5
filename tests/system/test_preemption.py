"""A run or a sweep that gets SIGTERM in the midst of an experience goes on there."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import State, StateStore
from tests.conftest import ROOT, one_result
from tests.engine.test_options import assert_equal
from tests.helpers.processes import CopiedClp, start_clp, wait_until

STREAM = {"name": "blobs", "experiences": 2, "classes_per_experience": 2, "samples_per_class": 100}
Process = CopiedClp | subprocess.Popen[str]
STEPS = 2 * 4 * 20  # experiences, epochs, batches
SETTINGS = {
    "stream": STREAM,
    "strategy": "tests.helpers.sweep_strategies:Paced",
    "epochs": 4,
    "optimizer": {"name": "adam", "lr": 0.001, "reset": False},
    "schedule": {"name": "OneCycleLR", "max_lr": 0.01, "interval": "step"},
    "ema": 0.9,
}


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the steps that processes have taken."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PACED_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lambda: len(log.read_text().splitlines())


def ended_at(count: int, steps: Callable[[], int], process: Process) -> str:
    """End a job by SIGTERM when so many steps are taken, and return what it says."""
    wait_until(lambda: steps() >= count, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    return err


def states(folder: Path) -> Iterator[tuple[str, State]]:
    """Yield the stored states of a run in the order of their keys."""
    stored = folder / "clp-results" / "states"
    for path in sorted(stored.glob("*/*.pt")):
        state = StateStore(stored).load(path.stem)
        assert state is not None
        yield path.stem, state


def finished(process: Process, folder: Path, steps: Callable[[], int]) -> str:
    """What a job that goes on to its end prints."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert steps() == STEPS, "no step is taken twice"
    assert not list(folder.rglob("*.checkpoint"))
    return str(out)


def test_ended_twice_in_mid_experience_a_run_ends_as_undisturbed(
    tmp_path: Path, steps: Callable[[], int]
) -> None:
    folder, whole = tmp_path / "ended", tmp_path / "undisturbed"
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    job = ["run", "--config", "run.yaml", "--json"]
    for count in (10, 35):  # both in the first experience
        assert ended_at(count, steps, CopiedClp(job, folder)).startswith("terminated; ")
        assert steps() < STEPS // 2
        assert len(list(folder.rglob("*.checkpoint"))) == 1
    out = finished(CopiedClp(job, folder), folder, steps)
    found = json.loads(out)
    wanted = execute(make_plan(parse_config(SETTINGS)), whole / "clp-results").to_json()
    for part in ("run_id", "matrix", "metrics"):
        assert found[part] == wanted[part]
    pairs = zip(states(folder), states(whole), strict=True)
    for (key, state), (same, other) in pairs:
        assert key == same
        for part in ("strategy", "optimizer", "average"):
            assert_equal(getattr(state, part), getattr(other, part))


@pytest.mark.slow
def test_a_sweep_that_is_ended_goes_on_in_mid_experience(
    tmp_path: Path, steps: Callable[[], int]
) -> None:
    spec = {"base": SETTINGS, "axes": {"seed": [0]}, "workers": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    job = ["sweep", "mine.yaml"]
    err = ended_at(30, steps, start_clp(job, tmp_path))
    assert err.startswith("terminated; "), err
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    finished(start_clp(job, tmp_path), tmp_path, steps)
    assert one_result(tmp_path / "clp-results" / "mine")["cost"]["steps"] == STEPS
