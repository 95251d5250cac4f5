"""Files are whole or absent, in local folders as at addresses, whenever a writer dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from cl_platform.errors import StorageError
from cl_platform.storage.files import (
    discard,
    each,
    evict,
    exists,
    is_remote,
    listed,
    locked,
    read_bytes,
    read_json,
    remove,
    replacing,
    write_atomic,
    write_json,
)
from cl_platform.tracking.sinks import EventLog


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files(base: Path) -> None:
    path = base / "a" / "b.json"
    assert not exists(path)
    assert read_json(path) is None
    with pytest.raises(FileNotFoundError):
        read_bytes(path)
    remove(path)
    write_json(path, {"x": 1})
    assert exists(path)
    assert read_json(path) == {"x": 1}
    write_atomic(path, b"{")
    assert read_json(path) is None
    remove(path)
    assert not exists(path)
    write_atomic(base / "c", b"c")
    assert each(base, exists, [base / "c", base / "d"] * 20) == [True, False] * 20
    write_atomic(base / "e" / "f" / "g", b"g")
    for _ in range(2):
        discard(base / "e")
        assert not exists(base / "e" / "f" / "g")
    assert exists(base / "c")


def test_a_tree_is_listed(base: Path) -> None:
    assert listed(base / "absent") == []
    write_atomic(base / "states" / "aa" / "x.pt", b"123")
    write_atomic(base / "states" / "y.json", b"4")
    found = {path: size for _, size, path in listed(base / "states")}
    assert found == {base / "states" / "aa" / "x.pt": 3, base / "states" / "y.json": 1}


def test_relative_folders_mean_what_they_mean_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("~"), Path("."), Path("a/../b"), Path("file:c")):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "x.json", b"1")
        assert read_json(folder / "x.json") == 1
        assert folder / "x.json" in [path for _, _, path in listed(folder)]
        remove(folder / "x.json")
        assert not (folder / "x.json").exists()


def test_a_driver_with_real_folders_makes_them(tmp_path: Path) -> None:
    path: Any = UPath(f"file://{tmp_path}") / "a" / "b" / "c"
    assert is_remote(path)
    write_atomic(path, b"content")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"content"


def test_what_cannot_be_read_is_not_taken_for_absent(tmp_path: Path) -> None:
    for read in (read_json, read_bytes, exists):
        with pytest.raises(StorageError, match=r"cannot read .*Is a directory; check") as caught:
            read(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x"
    assert read_json(path) is None
    assert not exists(path)
    remove(path)
    with pytest.raises(StorageError, match="cannot write"):
        write_atomic(path, b"")


WRITER = """
import os, signal, sys
from pathlib import Path
from cl_platform.storage.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", [None, b"whole"])
def test_a_killed_writer_leaves_nothing_to_read(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "x.json"
    if before is not None:
        path.write_bytes(before)
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    if before is None:
        assert not exists(path)
    else:
        assert read_bytes(path) == before
    (left,) = names(tmp_path) - {"x.json"}
    assert left.startswith(".x.json.")
    write_atomic(path, b"next")
    assert read_bytes(path) == b"next"
    evict(tmp_path, 100, (".json",), keep=path)  # it may still be written
    assert left in names(tmp_path)
    os.utime(tmp_path / left, (0, 0))
    evict(tmp_path, 100, (".json",), keep=path)
    assert names(tmp_path) == {"x.json"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing_behind(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def file(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    def folder(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "part").write_bytes(b"half")
            raise error

    (tmp_path / "old").write_bytes(b"old")
    for make in (file, folder):
        for name in ("old", "new"):
            with pytest.raises(error):
                make(tmp_path / name)
    assert names(tmp_path) == {"old"}
    assert (tmp_path / "old").read_bytes() == b"old"


def test_content_is_on_the_disk_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str | int] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append(os.fstat(f).st_ino), sync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
    write_atomic(tmp_path / "a", b"a")
    assert done == [(tmp_path / "a").stat().st_ino, "rename"]
    done.clear()
    with replacing(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "x").write_bytes(b"x")
        (temporary / "inner" / "y").write_bytes(b"y")
    files = [tmp_path / "folder" / name for name in ("x", "inner/y")]
    assert sorted(map(str, done[:-1])) == sorted(str(file.stat().st_ino) for file in files)
    assert done[-1] == "rename"
    done.clear()
    write_atomic(tmp_path / "b", b"b", sync=False)
    assert done == ["rename"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from cl_platform.storage.files import locked, replacing
path = Path(sys.argv[1])
with locked(path):
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text("made")
        print("made")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "folder" / "x")]
    with locked(tmp_path / "folder" / "x"):
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(p.communicate(timeout=60)[0] for p in started) == ["", "made\n"]
    assert names(tmp_path / "folder") == {"x", ".x.lock"}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "x"), locked(tmp_path / "x"):
        write_atomic(tmp_path / "x", b"made")
    assert read_bytes(tmp_path / "x") == b"made"


def test_a_lock_where_nothing_can_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    entered = False
    with locked(tmp_path / "file" / "x"):
        entered = True
    assert entered


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new.pt", "kept.pt", "used.pt", "old.pt", "oldest.json")):
        write_atomic(tmp_path / name[:1] / name, b"x" * 100)
        os.utime(tmp_path / name[:1] / name, (1e9 - age, 1e9 - age))
    write_atomic(tmp_path / ".x.pt.lock", b"")
    os.utime(tmp_path / ".x.pt.lock", (0, 0))
    keep = tmp_path / "k" / "kept.pt"
    assert evict(tmp_path, 400, (".pt",), keep) == 400
    assert evict(tmp_path, 300, (".pt",), keep) == 200  # a little less than the budget
    left = {path.name for _, _, path in listed(tmp_path)}
    assert left == {"new.pt", "kept.pt", "oldest.json"}
    assert evict(tmp_path, 0, (".pt",), keep) == 100
    assert evict(tmp_path, 0, (".pt",), keep) == 100
    assert {path.name for _, _, path in listed(tmp_path)} == {"kept.pt", "oldest.json"}


def test_events_are_kept_when_a_log_is_taken_up_again(base: Path) -> None:
    path = base / "events.jsonl"
    write_atomic(path, b'{"event": "start"}\n{"event": "evalu')
    for _ in range(2):
        log = EventLog(path)
        log.emit({"event": "start"})
        log.emit({"event": "progress"})
        log.emit({"event": "end"})
    lines = read_bytes(path).decode().splitlines()
    assert lines[:2] == ['{"event": "start"}', '{"event": "evalu']
    assert [json.loads(line)["event"] for line in lines[2:]] == ["start", "end"] * 2
