"""A strategy of Avalanche that is killed in the midst of its work goes on in another process with
the same bits, which are those of an undisturbed run."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cl_platform.storage.state_store import MAGIC
from tests.conftest import one_result
from tests.helpers.processes import CopiedClp, wait_until

Clp = Callable[..., tuple[int, str, str]]

JOB = ["run", "--stream", "split-digits", "--strategy", "avalanche", "--epochs", "4"]
JOB += ["--set", "strategy.method=MIR", "--set", "optimizer.name=adam", "--lr", "0.001"]
JOB += ["--set", "strategy.arguments={mem_size: 100, subsample: 50, batch_size_mem: 10}"]
JOB += ["--set", "optimizer.reset=false", "--set", "model.hidden=[32]"]


def states(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.pt"))


@pytest.mark.filterwarnings("ignore")  # there are many in Avalanche
def test_killed_between_its_experiences_it_ends_with_the_same_states(
    clp: Clp, tmp_path: Path
) -> None:
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    disturbed.mkdir()
    killed = CopiedClp(JOB, disturbed)
    wait_until(lambda: len(states(disturbed)) >= 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    left = {path.name: path.read_bytes() for path in states(disturbed)}
    assert 2 <= len(left) < 5
    for folder in (disturbed, whole):
        code, _, err = clp(*JOB, "--out", str(folder / "clp-results"))
        assert code == 0, err
    found, expected = (one_result(folder / "clp-results") for folder in (disturbed, whole))
    assert found["matrix"] == expected["matrix"]
    assert found["run_id"] == expected["run_id"]
    for ours, theirs in zip(states(disturbed), states(whole), strict=True):
        assert ours.name == theirs.name
        assert left.get(ours.name, ours.read_bytes()) == ours.read_bytes()  # was not trained again
        assert_same(ours, theirs)


def assert_same(first: Path, second: Path) -> None:
    """The strategy of two stored states is the same to the bit; their seconds may differ."""
    a, b = (
        torch.load(io.BytesIO(path.read_bytes()[len(MAGIC) + 32 :]), weights_only=True)["strategy"]
        for path in (first, second)
    )
    assert a.keys() == b.keys()
    assert a["graph"] == b["graph"]
    assert all(torch.equal(a[name], b[name]) for name in a if name != "graph")
