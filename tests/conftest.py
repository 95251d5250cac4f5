"""Shared pieces of the tests: where real data are, small streams, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"

if REAL_DATA.is_dir():
    os.environ["CLP_DATA"] = str(REAL_DATA)
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that lies beside the checkout where the project is developed."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data sets in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def clp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a `clp` command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    from cl_platform.cli import call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = call(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


def start_clp(arguments: Sequence[str], cwd: Path, **options: object) -> subprocess.Popen[str]:
    """A real `clp` process."""
    command = [sys.executable, "-c", "from cl_platform.cli import main; main()", *arguments]
    return subprocess.Popen(
        command,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def one_result(out: Path) -> dict:
    """The content of the only result.json under a folder."""
    (path,) = out.glob("runs/*/result.json")
    return json.loads(path.read_text())
