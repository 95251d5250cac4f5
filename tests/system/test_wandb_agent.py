"""A sweep that W&B leads: `wandb sweep` and `wandb agent` with the document in examples/wandb."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, one_result
from tests.helpers.wandb_server import KEY, WandbServer

DOCUMENT = ROOT / "examples" / "wandb" / "sweep.yaml"
PARAMETERS = {"strategy.memory_size": 50, "lr": 0.02, "seed": 1}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.close()


def wandb(folder: Path, server: WandbServer, *words: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env |= {"HOME": str(folder), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow  # an agent asks for work every few seconds
def test_an_agent_runs_what_it_is_told(tmp_path: Path, server: WandbServer) -> None:
    said = wandb(tmp_path, server, "sweep", "--project", "mine", str(DOCUMENT))
    assert "me/mine/first" in said
    server.to_run = [PARAMETERS]
    wandb(tmp_path, server, "agent", "me/mine/first")
    (sent,) = server.runs.values()
    result = one_result(tmp_path / "clp-results" / "agents")
    assert (
        sent.config["strategy"]["memory_size"] == result["config"]["strategy"]["memory_size"] == 50
    )
    assert (sent.config["lr"], sent.config["seed"]) == (0.02, 1)
    assert sent.summary["average_accuracy"] == result["metrics"]["average_accuracy"]
