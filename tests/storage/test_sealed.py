"""Records with a checksum: what is read is what was written, under the same key, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cl_platform.errors import BadInput
from cl_platform.storage.files import exists, read_bytes, read_json, write_atomic
from cl_platform.storage.sealed import read_sealed, seal

CONTENT = {"a": [0.1, None, 1e300, -0.0], "b": {"ä": "\n", "10": 1, "9": True}}


def read(path: Path, key: str = "k") -> Any:
    return read_sealed(path, key, lambda data: data)


@pytest.mark.parametrize("indent", [None, 1])
def test_what_was_written_is_read(base: Path, indent: int | None) -> None:
    path = base / "x" / "r.json"
    assert read(path) is None
    write_atomic(path, seal("k", CONTENT, indent))
    assert read(path) == CONTENT
    assert read_json(path) == {"checksum": read_json(path)["checksum"], **CONTENT}


def test_no_bit_can_be_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, whole = tmp_path / "r.json", seal("k", CONTENT, None)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert read(path) is None, bit
        assert not path.exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8 * len(whole)
    assert set(lines) == {
        f"{tmp_path.name}/r.json is corrupt (its checksum is wrong): kept as r.json.corrupt, not "
        "used, made again if needed"
    }
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read(path) is None


def test_a_record_is_nothing_under_another_key(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = base / "r.json"
    write_atomic(path, whole := seal("k", CONTENT))
    assert read(path, "l") is None
    assert "its checksum is wrong" in capsys.readouterr().err
    assert read_bytes(base / "r.json.corrupt") == whole
    assert not exists(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BadInput("it is of run x"), "it is of run x"), (KeyError("a"), "its form is unknown")],
)
def test_what_its_reader_refuses_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, reason: str
) -> None:
    def refuse(data: dict[str, Any]) -> None:
        raise error

    path = tmp_path / "r.json"
    path.write_bytes(seal("k", CONTENT))
    assert read_sealed(path, "k", refuse) is None
    assert f"r.json is corrupt ({reason}): kept as r.json.corrupt" in capsys.readouterr().err


def test_where_nothing_can_be_written_it_is_only_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    path.write_text("{")
    (tmp_path / "r.json.corrupt").mkdir()  # a file cannot replace it
    assert read(path) is None
    assert path.exists()
    assert "r.json is corrupt (its checksum is wrong): left there" in capsys.readouterr().err
