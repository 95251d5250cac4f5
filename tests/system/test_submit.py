"""`clp submit` to the job server of a real Ray head that asks for a token."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.results.result import Result
from sweeps.planning import plan_runs
from sweeps.spec import parse_spec
from tests.helpers.processes import start_clp

Clp = Callable[..., tuple[int, str, str]]
# A head with its dashboard takes long to start: once, for all tests that need one.
needs_a_head = pytest.mark.slow

SPEC = {"base": {"stream": "blobs"}, "axes": {"strategy": ["mine:Mine"], "seed": [0, 1]}}
BROKEN = "axes.strategy=[mine:Mine, {name: mine:Mine, broken: true}]"
MINE = """
from cl_platform import Strategy
class Mine(Strategy):
    broken: bool = False
    def loss(self, batch):
        return super().loss(batch) / (0 if self.broken else 1)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head with token authentication, and the environment that gets in."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text(secrets.token_hex(16))
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "COLUMNS": "80",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    port, dashboard, client = free_port(), free_port(), free_port()
    ray = shutil.which("ray", path=environment["PATH"]) or "ray"
    # A folder of its own, of which sockets allow no long name: else jobs take the Ray of this machine
    # that was started last for theirs.
    own = tempfile.mkdtemp(prefix="ray")
    command = [
        ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=1", f"--temp-dir={own}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--ray-client-server-port={client}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            break
    assert process.poll() is None, "".join(said)
    yield f"http://127.0.0.1:{dashboard}", environment
    process.terminate()
    process.communicate(timeout=60)
    shutil.rmtree(own, ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working directory with a strategy of one's own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return folder


def submit(
    project: Path, address: str, environment: dict[str, str], *more: str
) -> tuple[int, str, str]:
    out = project.parent / "out"
    process = start_clp(
        ["submit", "spec.yaml", "--address", address, "--out", str(out), *more],
        project,
        env=environment,
    )
    printed, err = process.communicate(timeout=240)
    return process.returncode, printed, err


@needs_a_head
def test_a_job_ends_with_the_results_and_the_exit_code_of_its_sweep(
    head: tuple[str, dict[str, str]], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = project.parent / "out"

    def statuses() -> list[str]:
        record = json.loads((out / "sweep.json").read_text())
        return [run["status"] for run in record["phases"][0]["runs"]]

    code, printed, err = submit(project, *head, "--set", BROKEN)
    assert code == 1, printed + err
    assert "runs 2 of 4 done, 2 failed" in printed
    assert "failed at experience 1 of 5, step 1: loss is inf" in printed
    assert statuses() == ["done", "done", "failed", "failed"]
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    for run in plan_runs(parse_spec(SPEC), Planner()):
        result = Result.load(out / "runs" / run.run_id)
        assert result is not None
        assert result.metrics == execute(make_plan(run.config), None).metrics

    code, printed, err = submit(project, *head)  # which is done already
    assert code == 0, printed + err
    assert "runs 2 of 2 done" in printed
    assert statuses() == ["done", "done"]


@needs_a_head
def test_a_working_directory_may_have_packages_with_the_names_of_ours(
    head: tuple[str, dict[str, str]], project: Path
) -> None:
    for package in ("strategies", "sweeps"):
        (project / package).mkdir()
        (project / package / "__init__.py").write_text("raise RuntimeError('not this package')")
    (project / "mine.py").rename(project / "strategies" / "mine.py")
    spec = {"base": {"stream": "blobs"}, "axes": {"strategy": ["er", "strategies/mine.py:Mine"]}}
    (project / "spec.yaml").write_text(yaml.safe_dump(spec))
    code, printed, err = submit(project, *head)
    assert code == 0, printed + err
    assert "runs 2 of 2 done" in printed


@needs_a_head
def test_without_the_token_nobody_gets_in(
    head: tuple[str, dict[str, str]], project: Path, tmp_path: Path
) -> None:
    address, environment = head
    (tmp_path / "wrong").write_text(secrets.token_hex(16))
    wrong = {**environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    code, _, err = submit(project, address, wrong)
    assert code == 2, err
    assert err.startswith(f"error: the job server at {address} did not take the job:")
    assert "RAY_AUTH_TOKEN_PATH" in err
    assert len(err.splitlines()) == 1


def test_what_cannot_be_submitted_is_refused_at_once(clp: Clp, project: Path) -> None:
    def error(*arguments: str) -> str:
        code, _, err = clp("submit", str(project / "spec.yaml"), *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1
        return err

    there = ["--address", "http://127.0.0.1:9", "--working-dir", str(project)]
    assert error(*there, "--out", "/results").startswith(
        "error: no Ray at address 'http://127.0.0.1:9': Connection refused"
    )
    elsewhere = [*there[:3], str(project.parent / "no"), "--out", "/results"]
    assert "is not inside the working directory" in error(*elsewhere)
    assert "give an absolute path or URL that all nodes share" in error(*there, "--out", "results")
    assert error(*there, "--out", "/results", "--env", "CLP_DATA") == (
        "error: env 'CLP_DATA' is not of the form NAME=VALUE\n"
    )


@needs_a_head
def test_a_working_directory_above_the_limit_is_refused(
    head: tuple[str, dict[str, str]], project: Path
) -> None:
    (project / "weights.bin").write_bytes(secrets.token_bytes(110 * 2**20))
    code, _, err = submit(project, *head)
    assert code == 2, err
    assert "is above the job server's limit of about 100 MiB" in err
    assert "weights.bin 110 MiB" in err
