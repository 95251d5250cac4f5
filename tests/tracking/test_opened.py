"""Sinks that are plugins: found by name, checked before a run, dropped when they fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import cl_platform as clp
from cl_platform.errors import BadInput, ConfigError
from cl_platform.tracking.opened import open_sinks

OWN = '''
import json
from pathlib import Path

class Lines:
    """Write the names of events, one a line.

    Args:
        out: folder of the records.
        file: to write to.
    """
    def __init__(self, out: Path, file: str = "events.txt") -> None:
        self.path = out / file
        self.names = []

    def emit(self, event):
        self.names.append(event["event"])

    def close(self):
        self.path.write_text("\\n".join(self.names))

class Breaks(Lines):
    """Fail at the first event."""
    def emit(self, event):
        raise RuntimeError("no disk")

class Lacks(Lines):
    """Need what nobody has."""
    library = "no_such_library"
'''
STREAM = {"name": "blobs", "experiences": 2, "samples_per_class": 6}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "own.py"


def test_a_sink_of_ones_own_is_named_by_its_file(own: str, tmp_path: Path) -> None:
    section = {"name": f"{own}:Lines", "file": "mine.txt"}
    clp.run(STREAM, out=tmp_path / "out", sinks=[section])
    names = (tmp_path / "out" / "mine.txt").read_text().splitlines()
    assert (names[0], names[-1]) == ("start", "end")
    assert names.count("evaluated") == 3


def test_a_flag_and_a_file_add_up(
    own: str, tmp_path: Path, clp: Callable[..., tuple[int, str, str]]
) -> None:
    given = {"stream": STREAM, "sinks": [{"name": f"{own}:Lines", "file": "a.txt"}]}
    (tmp_path / "run.yaml").write_text(json.dumps(given))
    code, _, err = clp("run", "--config", "run.yaml", "--sink", f"{own}:Lines", "--out", ".")
    assert (code, err) == (0, "")
    assert (tmp_path / "a.txt").exists()
    assert (tmp_path / "events.txt").exists()


def test_a_sink_that_fails_costs_one_line(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = clp.run(STREAM, out=tmp_path, sinks=[f"{own}:Breaks"])
    assert len(result.matrix) == 2
    assert capsys.readouterr().err == "Breaks stopped: no disk\n"


@pytest.mark.parametrize(
    ("sink", "line"),
    [
        ("tensorbord", "unknown sink 'tensorbord'. Did you mean 'tensorboard'?"),
        ({"name": "mlflow", "url": "x"}, "sinks.0.url is unknown. Did you mean 'uri'?"),
    ],
)
def test_a_wrong_name_is_said_before_the_run(tmp_path: Path, sink: object, line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace(".", r"\.").replace("?", r"\?")):
        clp.run(STREAM, out=tmp_path / "out", sinks=[sink])  # type: ignore[list-item]
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named(own: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs no_such_library: install"):
        open_sinks([{"name": f"{own}:Lacks"}], tmp_path)
