"""Where W&B's files go: beside the records, not into a home that may be read-only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cl_platform.config.tracking import Wandb
from cl_platform.tracking.wandb import sink


def test_a_strategy_that_changes_directory_moves_no_file_of_wandbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(sink, "WandbSink", lambda mode, out, *_: made.append(out))
    monkeypatch.setattr(sink, "Background", lambda make, **_: make)
    monkeypatch.chdir(tmp_path)
    make: Any = sink.background_sink(Wandb(mode="offline"), "here")
    monkeypatch.chdir("/")
    make()
    assert made == [tmp_path / "here"]


def test_what_waits_to_be_sent_waits_in_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**fields: Any) -> tuple[str, str | None]:
        return fields["dir"], os.environ.get("WANDB_DATA_DIR")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    monkeypatch.setenv("WANDB_DATA_DIR", "")
    monkeypatch.setattr(sink, "DATA_DIR", None)
    for out in (tmp_path / "a", tmp_path / "b"):  # one after the other in a worker
        assert sink.start_run("offline", out) == (str(out), str(out / "wandb"))
    monkeypatch.setattr(sink, "DATA_DIR", "/given")
    monkeypatch.setenv("WANDB_DATA_DIR", "/given")
    assert sink.start_run("offline", tmp_path / "c") == (str(tmp_path / "c"), "/given")
