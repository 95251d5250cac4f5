"""An update that is killed and run again, in processes of their own, against one in this process."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_platform import Result
from cl_platform.results.load import load_run, read_results
from tests.helpers.processes import CopiedClp, wait_until

Clp = Callable[..., tuple[int, str, str]]

# Long enough to be killed in the middle of the new experience.
RUN = [
    "--stream",
    "split-digits",
    "--strategy",
    "er",
    "--epochs",
    "40",
    "--set",
    "model.hidden=[32]",
]
RUN += ["--set", "stream.experiences=1", "--set", "stream.open=true"]
NEW = ["--data", "split-digits", "--set", "data.classes=[0,1,2]"]


def updated(folder: Path) -> Result:
    return next(r for r in read_results(folder / "clp-results") if len(r.experiences) == 2)


def state_of(folder: Path) -> dict[str, Any]:
    return updated(folder).strategy().state_dict()


def test_an_update_killed_in_the_middle_has_the_same_bits(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    monkeypatch.chdir(killed)
    code, _, err = clp("run", *RUN, "--set", "stream.classes=[5,6]")
    assert code == 0, err
    shutil.copytree(killed, whole)
    before = next(iter(read_results(killed / "clp-results"))).run_id
    document = (killed / "clp-results" / "runs" / before / "result.json").read_bytes()
    monkeypatch.chdir(whole)
    code, _, err = clp("update", before, *NEW)
    assert code == 0, err
    process = CopiedClp(["update", before, *NEW], killed)
    runs = killed / "clp-results" / "runs"

    def training() -> bool:  # after the rows before training and of the first experience
        logs = [p for p in runs.glob("*/events.jsonl") if p.parent.name != before]
        return any(log.read_text("utf-8").count('"evaluated"') == 2 for log in logs)

    wait_until(training, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(read_results(killed / "clp-results")) == 1
    process = CopiedClp(["update", before, *NEW], killed)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert updated(killed).matrix.values.tolist() == updated(whole).matrix.values.tolist()
    one, other = state_of(killed), state_of(whole)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one if torch.is_tensor(one[k]))
    assert (killed / "clp-results" / "runs" / before / "result.json").read_bytes() == document
    assert load_run(before, killed / "clp-results").model().class_names == ("5", "6")
