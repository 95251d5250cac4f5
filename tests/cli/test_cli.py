"""The command line: what it prints, its exit codes, and that nothing is half-written."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_platform.cli import app
from cl_platform.config.run_config import flag_fields
from cl_platform.engine.optimization import OPTIMIZERS
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


@pytest.mark.parametrize("lr", ["1e-12", "1e30"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_json_is_one_document_for_any_optimizer(clp: Clp, optimizer: str, lr: str) -> None:
    flags = ("--set", f"optimizer={{name: {optimizer}, lr: {lr}}}")
    small = ("--set", "stream.samples_per_class=8", "--set", "stream.experiences=2")
    code, out, err = clp("run", *FAST, *flags, *small, "--json")
    document = json.loads(out, parse_constant=pytest.fail)
    assert (code == 0) == ("metrics" in document)
    assert ("error" in document) == ("error: " in err)


STOPPED = """
from cl_platform import Strategy
class Stopped(Strategy):
    def begin_experience(self, experience):
        raise KeyboardInterrupt
"""


@pytest.mark.parametrize("command", ["run", "check", "rank"])
@pytest.mark.parametrize("as_json", [("--json",), ("--json=true",), ()])
def test_an_interrupt_is_one_line_and_one_document(
    clp: Clp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    as_json: tuple[str, ...],
) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streams.curricula.designer.ranked", stop)
    words = {
        "run": ("run", "--stream", "blobs", "--strategy", "stopped.py:Stopped"),
        "check": ("check", "stopped.py:Stopped"),
        "rank": ("rank", "--stream", "blobs"),
    }
    code, out, err = clp(*words[command], *as_json)
    (line,) = err.splitlines()
    assert (code, line.partition(";")[0]) == (130, "interrupted")
    if as_json:
        assert json.loads(out) == {"error": [line]}


NOISY = """
import os
from cl_platform import Strategy
print("at import")
class Noisy(Strategy):
    def begin_experience(self, experience):
        super().begin_experience(experience)
        print("in training")
        os.system("echo from a child")
"""


def test_json_stands_alone_whatever_a_strategy_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy.py").write_text(NOISY)
    strategy = "noisy.py:Noisy"
    assert app.call(["run", "--stream", "blobs", "--strategy", strategy, "--json"]) == 0
    found = capfd.readouterr()
    assert json.loads(found.out)["config"]["strategy"]["name"] == strategy
    assert {"at import", "in training", "from a child"} <= set(found.err.splitlines())
    assert app.call(["run", *FAST, "--lr", "inf", "--json"]) == 2
    assert json.loads(capfd.readouterr().out) == {
        "error": ["optimizer.lr=inf: give a finite number"]
    }
    assert app.call(["run", *FAST, "--lr", "0.1"]) == 0
    assert "average_accuracy" in capfd.readouterr().out  # back where it was


def test_the_same_command_again_returns_the_finished_result(clp: Clp) -> None:
    _, first, _ = clp("run", *FAST, "--json")
    _, second, _ = clp("run", *FAST, "--json")
    assert first == second
    _, out, _ = clp("run", *FAST)
    assert "had finished before" in out


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
    assert "loss is" in json.loads(out)["error"][0]
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


def test_without_a_working_folder(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (("run",), ("report", "."), ("list", "--json")):
        code, out, err = clp(*command)
        assert code == 2
        assert err == "error: the working folder has been removed; change to another one\n"
        assert not out or json.loads(out)["error"]


def test_folders_that_may_not_be_used_are_one_line(
    clp: Clp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may use any folder, so the system's answer is put in its place."""
    clp("run", *FAST, "--out", "o")
    os.rename(tmp_path / "o", tmp_path / "locked")

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *args: object, **kwargs: object) -> object:
            if "locked" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return call

    for module, name in (
        (os, "open"),
        (os, "stat"),
        (os, "listdir"),
        (os, "mkdir"),
        (io, "open"),
        (builtins, "open"),
    ):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    for command in (
        ("run", *FAST, "--out", "locked"),
        ("report", "locked"),
        ("report", "locked", "--out", "locked/x.html"),
        ("new", "Mine", "--folder", "locked/x"),
        ("rank", "--stream", "blobs", "--figure", "locked/x.png"),
        ("run", "--config", "locked/x.yaml"),
    ):
        code, out, err = clp(*command)
        assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 1), command
        assert "Permission denied" in err


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_names_without_a_file_are_one_line(clp: Clp, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for command in (
        ("run", *FAST, "--out", name),
        ("report", name),
        ("new", "Mine", "--folder", name),
        ("rank", "--stream", "blobs", "--figure", f"{name}/{name}.png"),
        ("run", "--config", name),
        ("run", "--strategy", f"{name}.py:Mine"),
        ("new", "A" + "x" * 300),
    ):
        code, out, err = clp(*command)
        assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 1), command


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model", "os:getcwd"),
        ("--strategy", "os:getcwd"),
        ("--seed", "9" * 400),
        ("--set", "seed=" + "9" * 5000),
        ("--set", "schedule={name: StepLR, step_size: 0}"),
        ("--lr", "inf"),
    ],
    ids=lambda a: " ".join(a)[:40],
)
def test_bad_input_exits_with_2_before_anything_is_written(
    clp: Clp, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, out, err = clp("run", "--stream", "blobs", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not list(tmp_path.iterdir())


def test_a_dotted_flag_is_a_setting(clp: Clp) -> None:
    flags = ("run", "--stream", "blobs", "--json", "--out", "o")
    code, out, err = clp(*flags, "--stream.experiences", "2", "--stream.samples_per_class=8")
    assert (code, err) == (0, "")
    assert json.loads(out)["config"]["stream"]["experiences"] == 2
    settings = ("--set", "stream.experiences=2", "--set", "stream.samples_per_class=8")
    assert clp(*flags, *settings)[1] == out
    code, _, err = clp(*flags, "--stream.experience", "2")
    assert (code, err[:30]) == (2, "error: stream.experience is un")
    code, _, err = clp(*flags, "--stream.experiences")
    assert (code, err[:26]) == (2, "error: stream.experiences=")
