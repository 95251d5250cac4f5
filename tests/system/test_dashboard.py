"""`clp dashboard` as a process of its own, and what a W&B server receives of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.processes import CopiedClp
from tests.helpers.wandb_server import WandbServer
from tests.system.test_wandb import environment, to
from tests.tracking.test_dashboard import snapshot


def create(folder: Path, **variables: str) -> tuple[int, str, str]:
    arguments = ["dashboard", "--entity", "someone"]
    process = CopiedClp(arguments, folder, env=environment(folder, **variables))
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_what_is_created_is_what_a_dry_run_shows(tmp_path: Path) -> None:
    server = WandbServer()
    code, out, err = create(tmp_path, **to(server))
    server.close()
    assert (code, err) == (0, "")
    assert server.projects == ["someone/cl-platform"]
    report, workspace = server.views
    assert json.loads(report["spec"]) == snapshot()["report"]["spec"]
    assert json.loads(workspace["spec"]) == snapshot()["workspace"]["spec"]
    assert (report["type"], workspace["type"]) == ("runs", "project-view")
    view = workspace["name"].removeprefix("nw-").removesuffix("-v")
    assert out.splitlines() == [
        f"{server.url}/someone/cl-platform/reports/Continual-learning--v1",
        f"{server.url}/someone/cl-platform?nw={view}",
    ]


@pytest.mark.parametrize(
    ("there", "reason"),
    [(False, "the server cannot be reached"), (True, "no API key; run `wandb login`")],
)
def test_without_a_network_or_key_it_costs_a_line(tmp_path: Path, there: bool, reason: str) -> None:
    server = WandbServer()
    address = server.url if there else "http://127.0.0.1:9"
    code, out, err = create(tmp_path, WANDB_BASE_URL=address)
    server.close()
    assert (code, out) == (1, "")
    assert err == f"error: W&B: {reason}; --dry-run shows the dashboard without it\n"
    assert server.views == []
