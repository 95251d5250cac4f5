"""Files are whole or absent, in local folders as at addresses, whenever a writer dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from cl_platform.errors import StorageError
from cl_platform.storage.files import (
    append,
    discard,
    each,
    evict,
    exists,
    is_remote,
    listed,
    present,
    read_bytes,
    read_json,
    remove,
    write_atomic,
    write_json,
    write_output,
)
from cl_platform.storage.local import locked, replacing
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
from collections import Counter
from pathlib import Path
from cl_platform.storage.local import replacing
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
    host, process = left.split(".")[3].split("-")
    others = tmp_path / left.replace(f".{host}-", ".zzzz-")  # of another machine
    mine = tmp_path / left.replace(f"-{process}.", f"-{os.getpid()}.")
    for kept in (others, mine):
        kept.write_bytes(b"")
    write_atomic(path, b"next")
    assert read_bytes(path) == b"next"
    assert names(tmp_path) == {"x.json", others.name, mine.name}
    evict(tmp_path, 100, (".json",), keep=path)  # they may still be written
    assert names(tmp_path) == {"x.json", others.name, mine.name}
    for kept in (others, mine):
        os.utime(kept, (0, 0))
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
from collections import Counter
from pathlib import Path
from cl_platform.storage.local import locked, replacing
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


def test_what_a_person_names_is_written_as_what_it_is(tmp_path: Path) -> None:
    file, link, dangling = (tmp_path / name for name in ("file", "link", "dangling"))
    file.write_bytes(b"old")
    link.symlink_to("file")
    dangling.symlink_to("new")
    for path in (file, link, dangling):
        assert write_output(path, b"content")
        assert path.read_bytes() == b"content"
    assert link.readlink() == Path("file")
    assert dangling.readlink() == Path("new")
    assert names(tmp_path) == {"file", "link", "dangling", "new"}
    link.unlink()
    link.symlink_to("link")
    for path in (link, tmp_path / "x" / ("y" * 300), tmp_path):
        with pytest.raises(StorageError) as caught:
            write_output(path, b"content")
        assert len(str(caught.value).splitlines()) == 1
    assert write_output(tmp_path / ("y" * 250), b"content")  # a temporary name is no longer


def test_a_pipe_and_a_device_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert not write_output(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        return  # only root makes devices, and not everywhere
    assert not write_output(device, b"content")
    assert stat.S_ISCHR(device.lstat().st_mode)


def test_standard_output_is_written_where_it_has_come_to(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as out:
        saved = os.dup(1)
        try:
            os.dup2(out.fileno(), 1)
            os.write(1, b"before ")
            assert not write_output(Path("/dev/stdout"), b"content")
            os.write(1, b" after")
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        out.seek(0)
        assert out.read() == b"before content after"


def test_links_and_pipes_among_our_files_are_none(tmp_path: Path) -> None:
    precious, link, pipe = (tmp_path / name for name in ("precious", "link.json", "pipe.json"))
    precious.write_text('{"a": 1}')
    link.symlink_to("precious")
    os.mkfifo(pipe)
    for path in (link, pipe):  # a pipe without a writer must not block
        assert read_json(path) is None
        assert not exists(path)
        with pytest.raises(StorageError, match="no regular file"):
            append(path, "{}")
        write_json(path, {"b": 2})
        assert read_json(path) == {"b": 2}
        assert path.lstat().st_nlink == 1
        assert stat.S_ISREG(path.lstat().st_mode)
    assert precious.read_text() == '{"a": 1}'


def test_what_another_user_owns_is_not_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate("abc"):
        (tmp_path / f"{name}.pt").write_bytes(b"x" * 10)
        os.utime(tmp_path / f"{name}.pt", (i, i))
    theirs = os.path.realpath(tmp_path / "a.pt")
    unlink = os.remove

    def refuse(path: Any, **kwargs: Any) -> None:
        if os.path.realpath(path) == theirs:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, **kwargs)

    monkeypatch.setattr(os, "remove", refuse)
    assert evict(tmp_path, 15, (".pt",), keep=tmp_path / "c.pt") == 20
    assert names(tmp_path) == {"a.pt", "c.pt"}


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


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests to addresses in memory."""
    asked: list[str] = []
    for name in ("find", "cat_file"):
        of = getattr(MemoryFileSystem, name)

        def noted(self: Any, path: str, *more: Any, of: Any = of, **named: Any) -> Any:
            asked.append(of.__name__)
            return of(self, path, *more, **named)

        monkeypatch.setattr(MemoryFileSystem, name, noted)
    return asked


@pytest.mark.parametrize(
    ("names", "requests"),
    [
        ([f"{i % 4}/{i}" for i in range(100)], {"find": 4}),
        (["0/0", "1/1", "1/5"], {"find": 1, "cat_file": 1}),
        ([f"{i}/x" for i in range(300)], {"find": 1}),  # more folders than it pays to list
    ],
)
def test_many_files_are_looked_for_in_few_requests(
    base: Path, counted: list[str], names: list[str], requests: dict[str, int]
) -> None:
    there = {name for i, name in enumerate(names) if i % 3 == 0}
    for name in there:
        write_atomic(base / name, b"")
    counted.clear()
    assert present(base, names) == there
    if is_remote(base):
        assert Counter(counted) == requests


def test_in_a_folder_that_is_not_there_is_no_file(base: Path) -> None:
    write_atomic(base / "some", b"")
    assert present(base, []) == set()
    assert present(base / "none", ["a/b", "a/c", "b"]) == set()
