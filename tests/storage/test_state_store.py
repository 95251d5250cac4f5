"""The state store keeps within its budget and never returns half a state."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cl_platform.storage import state_store
from cl_platform.storage.files import evict, listed, read_bytes, write_atomic
from cl_platform.storage.sealed import seal
from cl_platform.storage.state_store import Record, State, StateStore


def wait_for_the_clock(folder: Path) -> None:
    """Return when a new file would have another time than those that are there."""
    probe, before = folder / "probe", time.time()
    probe.touch()
    while probe.stat().st_mtime <= before:
        probe.touch()
    probe.unlink()


def test_states_stay_within_the_budget(base: Path, tmp_path: Path) -> None:
    store = StateStore(base / "states")
    store.save("a" * 8, State({}), None)
    size = len(read_bytes(base / "states" / "aa" / "aaaaaaaa.pt"))
    store = StateStore(base / "states", budget=int(3.5 * size))
    for letter in "bcdef":
        wait_for_the_clock(tmp_path)
        store.save(letter * 8, State({}), None)
    kept = [letter for letter in "abcdef" if store.load(letter * 8) is not None]
    assert kept == ["d", "e", "f"]


def test_the_folder_is_not_listed_at_every_state(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(
        state_store, "evict", lambda *a, **k: (calls.append(a[0]), evict(*a, **k))[1]
    )
    store = StateStore(base / "states")
    store.save("aa", State({}), None)
    size = len(read_bytes(base / "states" / "aa" / "aa.pt"))
    calls.clear()
    store = StateStore(base / "states", budget=100 * size)
    for i in range(130):
        store.save(f"{i:03}", State({}), None)
    assert len(calls) < 40


def test_the_last_state_of_a_run_is_kept(base: Path) -> None:
    store = StateStore(base / "states", keep="last")
    store.save("a" * 8, State({}), None)
    store.save("b" * 8, State({}), "a" * 8)
    assert store.load("a" * 8) is None
    assert store.load("b" * 8) is not None


def test_a_corrupt_state_is_renamed(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = StateStore(base)
    store.save("aa", State({"w": torch.ones(3)}), None)
    path = base / "aa" / "aa.pt"
    damaged = read_bytes(path)[:-3] + b"xyz"
    write_atomic(path, damaged)
    assert store.load("aa") is None
    assert capsys.readouterr().err == (
        "aa/aa.pt is corrupt (its checksum is wrong): kept as aa.pt.corrupt, not used, made again if "
        "needed\n"
    )
    assert read_bytes(base / "aa" / "aa.pt.corrupt") == damaged
    assert store.load("aa") is None
    assert capsys.readouterr().err == ""


def test_a_state_is_none_under_another_key(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = StateStore(base)
    store.save("aa", State({"w": torch.ones(3)}), None)
    write_atomic(base / "bb" / "bb.pt", read_bytes(base / "aa" / "aa.pt"))
    assert store.load("bb") is None
    assert "bb/bb.pt is corrupt (its checksum is wrong)" in capsys.readouterr().err
    assert store.load("aa") is not None


IDS = ["c" * 64, "a" * 64, "b" * 64]
RECORD = Record(
    rows={"test": {"seen": dict(zip(IDS, (0.1, 0.2, 1 / 3), strict=True))}},
    cost={"train_seconds": 1.5},
    calibration=dict(zip(IDS, (None, 0.5, 0.25), strict=True)),
    class_accuracy=[0.5, None],
    evaluator="e" * 64,
)


def test_a_record_comes_back_for_its_experiences_in_any_order(base: Path) -> None:
    store = StateStore(base)
    assert store.record("aa", IDS) == Record()
    store.save_record("aa", RECORD)
    assert store.record("aa", IDS) == store.record("aa", sorted(IDS)) == RECORD
    assert store.record("aa", IDS[:2]) == store.record("aa", [*IDS, "d" * 64]) == Record()
    assert store.record("aa", IDS) == RECORD, "of other experiences is not corrupt"


def test_a_record_does_not_repeat_identities(base: Path) -> None:
    StateStore(base).save_record("aa", RECORD)
    content = read_bytes(base / "aa" / "aa.json").decode()
    assert not [identity for identity in IDS if identity in content]


@pytest.mark.parametrize("damage", ["other key", "cut off", "other form"])
def test_a_corrupt_record_is_set_aside(
    base: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    store = StateStore(base)
    store.save_record("aa", RECORD)
    content = read_bytes(path := base / "aa" / "aa.json")
    damaged = {
        "other key": seal("bb", {}, None),
        "cut off": content[:-9],
        "other form": seal("aa", {"rows": {}}, None),
    }[damage]
    write_atomic(path, damaged)
    assert store.record("aa", IDS) == Record()
    assert "aa/aa.json is corrupt" in capsys.readouterr().err
    assert read_bytes(base / "aa" / "aa.json.corrupt") == damaged


@pytest.mark.system
def test_a_process_killed_while_it_saves_leaves_no_state(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from cl_platform.storage.state_store import State, StateStore
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
StateStore(Path(sys.argv[1])).save("aa", State({}), None)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "aa").iterdir()
    store = StateStore(tmp_path)
    assert store.load("aa") is None
    store.save("aa", State({"n": 1}), None)
    state = store.load("aa")
    assert state is not None
    assert state.strategy == {"n": 1}
    assert not left.exists()
    StateStore(tmp_path).save("ab", State({}), None)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"aa.pt", "ab.pt"}


def test_states_that_are_pinned_are_not_evicted(base: Path, tmp_path: Path) -> None:
    store = StateStore(base / "states", budget=None)
    for letter in "abc":
        wait_for_the_clock(tmp_path)
        store.save(letter * 8, State({}), None)
    assert store.written == sum(size for _, size, _ in listed(base / "states"))
    assert {letter for letter in "abc" if store.load(letter * 8) is not None} == {*"abc"}
    left = store.evict(0, ["a" * 8])
    assert [letter for letter in "abc" if store.load(letter * 8) is not None] == ["a"]
    assert left == len(read_bytes(base / "states" / "aa" / "aaaaaaaa.pt"))


def test_a_state_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save_record("aa", RECORD)
    assert store.wait_for(["aa"], None, 0.0)
    assert not store.wait_for(["aa"], "aa", 0.0)
    other = threading.Timer(0.2, lambda: StateStore(tmp_path).save("aa", State({}), None))
    other.start()
    assert store.wait_for(["aa"], "aa", 30.0)
    other.join()
    assert StateStore(None).wait_for(["aa"], "aa", 0.0)
