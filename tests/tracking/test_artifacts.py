"""Which states and files become artifacts of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.config.tracking import Wandb
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.tracking.wandb import sink as wandb_sink
from cl_platform.tracking.wandb.sink import WandbSink


class Listening:
    """A run of W&B's that keeps the artifacts it is given."""

    def __init__(self) -> None:
        self.artifacts: list[tuple[Any, list[str]]] = []
        self.summary: dict[str, Any] = {}

    def define_metric(self, name: str, **options: object) -> None: ...

    def log(self, row: dict) -> None: ...

    def log_artifact(self, artifact: Any, aliases: list[str] | None = None) -> None:
        self.artifacts.append((artifact, aliases or []))

    def finish(self, exit_code: int = 0) -> None: ...


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a run of three experiences logs with some options."""

    def of(**options: Any) -> list[tuple[Any, list[str]]]:
        run = Listening()
        monkeypatch.setattr(wandb_sink, "start_run", lambda *_, **__: run)
        plan = make_plan(parse_config({"stream": {"name": "blobs", "experiences": 3}}))
        sink = WandbSink("offline", tmp_path, Wandb(mode="offline", **options))
        execute(plan, tmp_path, sinks=[sink])
        return run.artifacts

    return of


def test_of_the_states_the_last_alone(logged: Any) -> None:
    ((artifact, aliases),) = logged(log_model="last")
    assert artifact.type == "model"
    assert aliases == ["experience-3", "latest"]
    assert artifact.metadata["experience"] == 3
    assert list(artifact.manifest.entries) == ["state.pt"]
    assert logged(log_model="last") == []  # nothing is trained, and so nothing saved


def test_every_state_is_made_from_the_one_before(logged: Any) -> None:
    found = [artifact.metadata for artifact, _ in logged(log_model="all")]
    assert [m["experience"] for m in found] == [1, 2, 3]
    assert [m["made_from"] for m in found[1:]] == [m["key"] for m in found[:-1]]


def test_the_files_of_what_a_configuration_names(logged: Any) -> None:
    ((artifact, _),) = logged(log_code=True)
    assert {"er.py", "mlp.py", "images.py", "basic.py"} <= set(artifact.manifest.entries)
