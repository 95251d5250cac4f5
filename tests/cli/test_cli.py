"""The command line: what it prints, its exit codes, and that nothing is half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from cl_platform.cli import app
from cl_platform.config.run_config import flag_fields
from tests.conftest import one_result

Clp = Callable[..., tuple[int, str, str]]
FAST = ("--stream", "blobs", "--strategy", "finetune")


def test_a_run_prints_its_matrix_and_metrics_within_80_columns(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp("run")
    assert code == 0
    assert err == ""
    assert "er on split-digits" in out
    assert "untrained" in out
    for metric in ("average_accuracy", "forgetting", "backward_transfer"):
        assert metric in out
    assert max(len(line) for line in out.splitlines()) <= 80
    result = one_result(tmp_path / "clp-results")
    assert f"{result['metrics']['average_accuracy']:.4f}" in out


@pytest.mark.parametrize("experiences", [1, 12, 25])
def test_any_number_of_experiences_fits_80_columns(clp: Clp, experiences: int) -> None:
    sizes = ["--set", f"stream.experiences={experiences}", "--set", "stream.dimensions=60"]
    code, out, _ = clp("run", *FAST, *sizes)
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80


def test_json_is_one_document_and_nothing_else(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp("run", *FAST, "--json", "--out", "o")
    assert code == 0
    assert err == ""
    assert json.loads(out) == one_result(tmp_path / "o")


def test_the_same_command_again_returns_the_finished_result(clp: Clp) -> None:
    _, first, _ = clp("run", *FAST, "--json")
    _, second, _ = clp("run", *FAST, "--json")
    assert first == second
    _, out, _ = clp("run", *FAST)
    assert "had ended before" in out


def test_flags_settings_and_files(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "stream: blobs\nstrategy: {name: er, memory_size: 50}\nepochs: 2"
    )
    flags = ["--config", "c.yaml", "--epochs", "1", "--batch-size", "20", "--lr", "0.01"]
    flags += ["--curriculum", "2,0,1", "--seed", "3", "--model", "mlp", "--scenario", "task"]
    flags += ["--set", "stream.experiences=3", "--set", "model.hidden=[16]"]
    code, out, _ = clp("run", *flags, "--json")
    assert code == 0
    result = json.loads(out)
    config = result["config"]
    assert result["order"] == [2, 0, 1]
    assert config["strategy"]["memory_size"] == 50
    assert (config["epochs"], config["batch_size"], config["seed"]) == (1, 20, 3)
    assert config["optimizer"]["lr"] == 0.01
    assert config["model"]["hidden"] == [16]
    assert result["scenario"] == "task"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--strategy", "e-r"), "error: unknown strategy 'e-r'. Did you mean 'er'?"),
        (("run", "--epochs", "abc"), "error: epochs=abc: input should be a valid integer"),
        (("run", "--lr", "-1"), "error: optimizer.lr=-1: input should be greater than 0"),
        (("run", "--scenario", "klass"), "error: stream.scenario=klass: input should be 'class'"),
        (
            ("run", "--set", "strategy.memory_size=-5"),
            "error: strategy.memory_size=-5: input should",
        ),
        (("run", "--set", "nonsense"), "error: setting 'nonsense' is not of the form key=value"),
        (("run", "--curriculum", "0,1,1,2,3"), "4 is missing"),
        (("run", "--config", "absent.yaml"), "error: config file absent.yaml cannot be read"),
        (
            ("run", "--stream", "permuted-digits", "--model", "cnn", "--set", "model.norm=x"),
            "norm=x",
        ),
        (("run", "--stream", "blobs", "--model", "cnn"), "inputs of shape (17,) are no images"),
        (("run", "--nonsense", "3"), "error: Unknown option"),
        (("run", "--wandb", "sometimes"), "error: Invalid value"),
        (("rum",), "error: "),
        (("check", "no:Class"), "error: strategy 'no:Class' cannot be imported"),
        (("new", "not a name"), "is no name for a class"),
        (("list", "strategy"), "error: Invalid value"),
        (("new", "Json"), "a module 'json' exists"),
        (("run", "--state-budget-gb", "nan"), "give a number of gigabytes"),
        (("run", "--state-budget-gb", "-1"), "give a number of gigabytes"),
        (("run", "--strategy", "math:pi"), "strategy 'math:pi' cannot be called with parameters"),
        (("run", "--curriculum", "os:getcwd"), "expected a Curriculum"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_clear_line(
    clp: Clp, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = clp(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("*"))


def test_all_faults_of_a_command_line_are_reported(clp: Clp) -> None:
    code, _, err = clp(
        "run", "--epochs", "-1", "--batch-size", "x", "--strategy", "e-r", "--seed", "a"
    )
    assert code == 2
    assert len(err.splitlines()) == 4


def test_a_run_that_fails_exits_with_1(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp("run", "--lr", "1e20", "--strategy", "finetune", "--json")
    assert code == 1
    assert out == ""
    assert "step" in err
    assert "lower lr" in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("**/result.json"))


@pytest.mark.parametrize("kind", ["streams", "strategies", "curricula", "models"])
def test_list_names_everything(clp: Clp, kind: str) -> None:
    code, out, _ = clp("list", kind, "--json")
    assert code == 0
    entries = json.loads(out)[kind]
    assert entries
    assert all(
        entry["summary"].endswith((".", ":")) or entry["summary"] for entry in entries.values()
    )
    code, out, _ = clp("list", kind)
    assert all(name in out for name in entries)
    assert max(len(line) for line in out.splitlines()) <= 80


def test_check_says_what_to_change(clp: Clp) -> None:
    code, out, _ = clp("check", "tests.engine.test_contract:Impure")
    assert code == 1
    assert "FAIL loss is pure" in out
    assert "change state in after_step" in out


def test_version(clp: Clp) -> None:
    from cl_platform import __version__

    assert clp("--version")[:2] == (0, f"{__version__}\n")


def test_the_help_of_a_run_names_every_flag_within_80_columns(clp: Clp) -> None:
    code, out, _ = clp("run", "--help")
    assert code == 0
    for name, field in flag_fields().items():
        assert f"--{name.replace('_', '-')} " in out
        assert str(field.description).split(maxsplit=1)[0] in out
    assert "[default: split-digits]" in " ".join(out.replace("│", " ").split())
    assert max(len(line) for line in out.splitlines()) <= 80


def test_switches(clp: Clp) -> None:
    flags = ["--permute-labels", "--no-count-flops", "--evaluate-every", "2"]
    config = json.loads(clp("run", *FAST, *flags, "--json")[1])["config"]
    assert (config["permute_labels"], config["count_flops"]) == (True, False)
    assert config["evaluate_every"] == 2


def test_a_folder_that_cannot_be_written(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = clp("run", *FAST, "--out", "file/results")
    assert code == 1
    assert "cannot write" in err
    assert "give another folder" in err
    assert len(err.splitlines()) == 1


def test_an_output_folder_marked_read_only(clp: Clp, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # Nothing is read-only for root: a folder that is no folder stands for it.
        folder = Path("/proc/self/results")
    else:
        folder = tmp_path / "results"
        folder.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    code, _, err = clp("run", *FAST, "--out", str(folder))
    assert code == 1
    assert "cannot write" in err
    assert len(err.splitlines()) == 1


class Unwritable(io.StringIO):
    """A standard output whose disk is full."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__()
        self.file = file

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self) -> int:
        return self.file.fileno()


def test_a_full_standard_output_is_one_line(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "full").open("w") as file:
        monkeypatch.setattr(sys, "stdout", Unwritable(file))
        code, _, err = clp("list", "models", "--json")
    assert (code, err) == (
        1,
        "error: cannot write to the standard output: No space left on device\n",
    )


def test_an_ascii_standard_output_shows_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    monkeypatch.setattr(app, "call", lambda arguments: print("━" * 3, flush=True))
    try:
        with pytest.raises(SystemExit):
            app.main([])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert content.getvalue() == b"???\n"


def test_sys_exit_that_nobody_caught_is_no_success(
    clp: Clp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl_platform.cli.list.plugins", lambda kind: sys.exit(0))
    code, _, err = clp("list", "models")
    assert code == 1
    assert err.startswith("error: a user's code ended the process")
