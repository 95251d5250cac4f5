"""Submission: what is checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Clp = Callable[..., tuple[int, str, str]]
SERVER = ("--address", "http://127.0.0.1:9", "--out", "/shared/out")  # nobody answers


def test_the_specification_is_checked_with_its_settings(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "sound.yaml").write_text("axes: {seed: [0]}")
    (tmp_path / "faulty.yaml").write_text("axes: {sed: [0]}")
    code, _, err = clp("submit", "sound.yaml", *SERVER, "--set", "axes.sed=[0]")
    assert (code, "axes: 'sed' is no setting of a run" in err) == (2, True)
    code, _, err = clp("submit", "sound.yaml", *SERVER, "--workers", "0")
    assert (code, "workers=0: " in err) == (2, True)
    code, _, err = clp("submit", "faulty.yaml", *SERVER, "--set", "axes={seed: [0]}")
    assert code == 2
    assert "127.0.0.1:9" in err  # it got as far as the server
