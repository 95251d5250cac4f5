"""A run leaves its process as it found it, and whatever its code raises is a failed run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, StreamInfo
from cl_platform.config import process
from cl_platform.config.process import Setting
from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import advance
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, CurriculumError, RunFailed
from cl_platform.storage.state_store import StateStore
from strategies.baselines import Finetune

Clp = Callable[..., tuple[int, str, str]]

SMALL = {"stream": {"name": "blobs", "experiences": 2, "samples_per_class": 20}}
STUCK = [0]  # what cannot be put back


class Careless(Finetune):
    """Changes what all runs of its process share."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        os.chdir("/")
        os.environ["CLP_DATA"] = "/"
        STUCK[0] += 1

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return super().forward(x.float(), task)


def shared() -> tuple[Any, ...]:
    """What the numbers of a run depend on beside its configuration."""
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        Path.cwd(),
        os.environ.get("CLP_DATA"),
    )


def test_a_run_leaves_its_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, innocent = shared(), clp.run(**SMALL, strategy="finetune", out=None)
    result = clp.run(**SMALL, strategy=Careless, out="here")  # relative, and it changes directory
    assert shared() == before
    assert result.path is not None
    assert result.path.is_relative_to(tmp_path)
    assert (tmp_path / "here" / "runs" / result.run_id / "result.json").exists()
    again = clp.run(**SMALL, strategy="finetune", out=None)
    assert (again.run_id, again.metrics) == (innocent.run_id, innocent.metrics)

    plan = make_plan(parse_config(SMALL), {"strategy": Careless()})
    advance(plan, StateStore(tmp_path / "states"), 1)
    assert shared() == before


def test_what_cannot_be_put_back_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(value: int) -> None:
        raise RuntimeError("only once")

    stuck = Setting("its own copy of the world", lambda: STUCK[0], refuse)
    settings = (*process._settings(), stuck)
    monkeypatch.setattr(process, "_settings", lambda: settings)
    result = clp.run(**SMALL, strategy=Careless, out=None)
    assert capsys.readouterr().err == (
        f"run {result.run_id} changed what cannot be put back: its own copy of the world; make "
        "other runs in a new process\n"
    )
    clp.run(**SMALL, strategy="finetune", out=None)
    assert capsys.readouterr().err == ""


MODULE = """
import torch
from strategies.baselines import Finetune

torch.set_default_dtype(torch.float64)

class Mine(Finetune):
    pass
"""


def test_the_import_of_a_users_module_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MODULE)
    before = shared()
    mine = clp.run(**SMALL, strategy=f"{file}:Mine", out=None)
    assert shared() == before
    assert mine.metrics == clp.run(**SMALL, strategy="finetune", out=None).metrics


class Leaving(Finetune):
    """Ends the process in one of its methods."""

    where: str = "loss"

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self._leave("setup")

    def loss(self, batch: Batch) -> Tensor:
        self._leave("loss")
        return super().loss(batch)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        self._leave("forward")
        return super().forward(x, task)

    def _leave(self, where: str) -> None:
        if where == self.where:
            sys.exit(0)


@pytest.mark.parametrize("where", ["setup", "loss", "forward"])
def test_sys_exit_is_a_failed_run(where: str) -> None:
    with pytest.raises(RunFailed, match=r"failed at experience [01] of 2: SystemExit: 0 \(test_"):
        clp.run(**SMALL, strategy=Leaving(where=where), out=None)


@pytest.mark.parametrize("command", ["run", "check"])
def test_sys_exit_does_not_end_a_command_well(clp: Clp, tmp_path: Path, command: str) -> None:
    name = f"{__name__}:Leaving"
    given = ["--strategy", name, "--stream", "blobs"] if command == "run" else [name]
    code, out, err = clp(command, *given)
    assert code == 1
    assert "SystemExit: 0" in out + err
    assert not list(tmp_path.glob("**/result.json"))


def test_sys_exit_in_a_users_module_is_one_line(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "s.yaml").write_text("axes: {strategy: ['leaving.py:Mine']}\n")
    for command in (["run", "--strategy", "leaving.py:Mine"], ["check", "leaving.py:Mine"]):
        code, _, err = clp(*command)
        assert code == 2
        assert "(SystemExit: 0)" in err
        assert len(err.splitlines()) == 1
    code, _, err = clp("sweep", "s.yaml")
    assert code == 2
    assert "(SystemExit: 0)" in err


def test_an_interrupt_is_no_failure() -> None:
    class Interrupted(Finetune):
        def after_step(self, batch: Batch) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clp.run(**SMALL, strategy=Interrupted, out=None)


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Silent(), "Silent: Silent ("),
        (ValueError("no\n" * 10**6), "ValueError: no no no "),
        (asyncio.CancelledError("stopped"), "CancelledError: stopped ("),
    ],
    ids=["without text", "megabytes", "of asyncio"],
)
def test_any_error_is_one_short_line(error: BaseException, line: str) -> None:
    class Raising(Finetune):
        def after_step(self, batch: Batch) -> None:
            raise error

    with pytest.raises(RunFailed) as caught:
        clp.run(**SMALL, strategy=Raising, out=None)
    text = str(caught.value)
    assert line in text
    assert len(text) < 1200
    assert "\n" not in text


@pytest.mark.parametrize("error", [ValueError("what is\nthis"), SystemExit(0)])
def test_diagnostics_that_raise_cost_a_line(
    error: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unclear(Finetune):
        def diagnostics(self) -> dict[str, float | list[float]]:
            raise error

    result = clp.run(**SMALL, strategy=Unclear, out=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        f"run {result.run_id} has no diagnostics of experience 2: {type(error).__name__}: "
    )
    log = (tmp_path / "runs" / result.run_id / "events.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["event"] == "end"


def test_a_curriculum_that_leaves_is_to_blame() -> None:
    class LeavingOrder(clp.Curriculum):
        def __call__(self, stream: clp.Stream, rng: Any) -> list[int]:
            sys.exit(0)

    with pytest.raises(CurriculumError, match="SystemExit: 0"):
        clp.run(**SMALL, curriculum=LeavingOrder(), out=None)


def test_a_plugin_that_leaves_is_to_blame() -> None:
    with pytest.raises(BadInput, match=r"cannot be made: SystemExit: 0"):
        clp.run(f"{__name__}:leaving_stream", "finetune", out=None)


def leaving_stream() -> clp.Stream:
    sys.exit(0)
