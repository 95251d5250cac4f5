"""The folder of a sweep as its driver sees it, at an address where requests are counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cl_platform.storage.files import location, write_atomic
from sweeps.executor.folder import SweepFolder
from sweeps.record import write_failure
from tests.helpers.sweep_runs import planned


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the requests."""
    found: list[str] = []
    for name in ("find", "cat_file"):
        of = getattr(MemoryFileSystem, name)

        def noted(self: Any, path: str, *more: Any, of: Any = of, **named: Any) -> Any:
            found.append(of.__name__)
            return of(self, path, *more, **named)

        monkeypatch.setattr(MemoryFileSystem, name, noted)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SweepFolder]:
    yield SweepFolder(location(f"memory://{tmp_path.name}"), 1.0)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_a_worker_is_followed_with_a_look_for_what_is_new(
    folder: SweepFolder, asked: list[str]
) -> None:
    keys = [f"{i:02}" + "0" * 62 for i in range(50)]
    for i, key in enumerate(keys[:5]):
        write_atomic(folder.states / key[:2] / f"{key}.json", b"")
        asked.clear()
        assert folder.made(keys) == {*keys[: i + 1]}
        assert asked == ["cat_file"] * 2, "the new one, and the one that is not there"
    asked.clear()
    assert folder.made(keys) == {*keys[:5]}
    assert asked == ["cat_file"]


def test_runs_that_have_not_ended_are_not_read(folder: SweepFolder, asked: list[str]) -> None:
    runs = planned({"seed": {"range": 300}})
    write_failure(folder.out, runs[7], "it broke", None)
    asked.clear()
    found = folder.ended(runs)
    assert found[7] == ("it broke", False)
    assert {*found[:7], *found[8:]} == {(None, False)}
    assert asked == ["find", "cat_file", "cat_file"], "the runs, and what the one has left"


def test_states_are_looked_for_by_folders(folder: SweepFolder, asked: list[str]) -> None:
    keys = [f"{i % 8:02}{i}" for i in range(2000)]
    for key in keys[:100]:
        write_atomic(folder.states / key[:2] / f"{key}.json", b"")
    asked.clear()
    assert folder.trained(keys) == {*keys[:100]}
    assert asked == ["find"] * 8
