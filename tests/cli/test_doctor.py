"""`clp doctor`: what it finds, what it calls a fault, and that it leaves nothing behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from cl_platform.cli import doctor

Clp = Callable[..., tuple[int, str, str]]
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "temporary"))


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Have packages other versions, or none at all."""

    def found(package: str) -> str:
        if package not in versions:
            return version(package)
        if versions[package] is None:
            raise PackageNotFoundError(package)
        return str(versions[package])

    monkeypatch.setattr(doctor, "version", found)


def test_it_says_what_there_is_within_80_columns(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp("doctor")
    assert (code, err) == (0, "")
    assert out.endswith("clp run works here\n")
    assert f"torch          {version('torch')}\n" in out
    assert "--device   cpu" in out
    for extra in doctor.PURPOSES:
        assert f"\n  {extra} " in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert not list(tmp_path.iterdir())


def test_json_is_the_same_in_one_document(clp: Clp) -> None:
    code, out, _ = clp("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["packages"]["torch"] == {"least": "2.7", "installed": version("torch")}
    assert found["extras"].keys() == doctor.PURPOSES.keys()
    assert found["extras"]["sweeps"]["packages"].keys() >= {"ray", "optuna"}
    assert found["machine"]["devices"]["cpu"]
    assert found["faults"] == []


def test_an_extra_that_is_missing_is_named_and_no_fault(
    clp: Clp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = dict.fromkeys(["ray", "optuna", "plotly", "matplotlib", "pyarrow"])
    installed(monkeypatch, **gone)
    code, out, _ = clp("doctor")
    assert code == 0
    assert "many runs: clp sweep, clp submit missing: " in out
    assert "pip install 'cl-platform[sweeps]'" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    found = json.loads(clp("doctor", "--json")[1])
    assert found["extras"]["sweeps"]["missing"]["ray"] == "is not installed"


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (None, "numpy is not installed"),
        ("1.25.9", "numpy 1.25.9 is older than 1.26"),
        ("1.26.0rc1", None),
        ("1.26", None),
        ("10.0", None),
    ],
)
def test_what_every_run_needs_is_a_fault_if_missing_or_too_old(
    clp: Clp, monkeypatch: pytest.MonkeyPatch, found: str | None, fault: str | None
) -> None:
    installed(monkeypatch, numpy=found)
    code, out, _ = clp("doctor")
    assert code == (1 if fault else 0)
    assert (f"error: {fault}\n" in out) == bool(fault)
    assert ("clp run works here" in out) == (not fault)


def test_a_torch_that_cannot_be_imported_is_a_fault(
    clp: Clp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = clp("doctor", "--json")
    assert code == 1
    (fault,) = json.loads(out)["faults"]
    assert fault.startswith("torch cannot be used: import of torch halted")


def test_a_folder_that_cannot_be_written_is_a_fault(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = clp("doctor", "--out", "file/results")
    assert code == 1
    assert "error: file/results cannot be written (Not a directory); give --out another" in out
    assert clp("doctor", "--out", "s3://bucket/folder")[0] == 0  # nothing is contacted
    assert clp("doctor", "--out", "new/and/deep")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_a_key_is_known_and_never_shown(
    clp: Clp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    assert "no key for api.wandb.ai" in clp("doctor")[1]
    monkeypatch.setenv("WANDB_BASE_URL", "http://server:8080")
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    else:
        file = tmp_path / "netrc"
        file.write_text(f"machine server login user password {KEY}\n")
        file.chmod(0o600)
        monkeypatch.setenv("NETRC", str(file))
    for words in ((), ("--json",)):
        _, out, err = clp("doctor", *words)
        assert "a key for server: --wandb online can be tried" in out
        assert KEY not in out + err


def test_the_cluster_that_would_be_used_is_named(
    clp: Clp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "no cluster here" in clp("doctor")[1]
    (tmp_path / "temporary" / "ray").mkdir(parents=True)
    (tmp_path / "temporary" / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert "--address auto: 10.0.0.1:6379 was started here" in clp("doctor")[1]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "--address auto: RAY_ADDRESS=head:6379" in clp("doctor")[1]
