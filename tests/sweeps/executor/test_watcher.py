"""The record of a sweep whose process is ended without a word says that it was interrupted."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cl_platform.storage.sealed import SWEEP, read_sealed, seal
from sweeps.executor.watcher import GOODBYE, watch


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [
        (b"", "running", "interrupted"),
        (b"", "done", "done"),
        (GOODBYE, "running", "running"),  # its own process writes what is true
    ],
)
def test_the_end_of_a_process_is_written_down(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: bytes,
    before: str,
    after: str,
) -> None:
    path = tmp_path / "sweep.json"
    path.write_bytes(seal(SWEEP, {"name": "mine", "status": before}))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(said)))
    watch(str(tmp_path))
    assert read_sealed(path, SWEEP, dict) == {"name": "mine", "status": after}
    assert len(capsys.readouterr().err.splitlines()) == (not said)
