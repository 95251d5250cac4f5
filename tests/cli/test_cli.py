"""The command line: what it prints, its exit codes, and that nothing is half-written."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_platform.config.run_config import flag_fields
from tests.conftest import one_result, start_clp

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


def test_new_writes_a_strategy_that_keeps_the_contract(clp: Clp, tmp_path: Path) -> None:
    code, out, _ = clp("new", "WeightedReplay")
    assert code == 0
    assert "clp check weighted_replay.py:WeightedReplay" in out
    code, out, _ = clp("check", "weighted_replay.py:WeightedReplay", "--json")
    assert code == 0
    assert all(verdict["ok"] for verdict in json.loads(out).values())
    code, _, err = clp("new", "WeightedReplay")
    assert code == 2
    assert "exists" in err
    code, out, _ = clp("run", "--strategy", "weighted_replay:WeightedReplay", "--stream", "blobs",
                       "--set", "strategy.beta=1", "--json")  # fmt: skip
    assert json.loads(out)["config"]["strategy"]["beta"] == 1
    test = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_weighted_replay.py",
    ]
    done = subprocess.run(test, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "10 passed" in done.stdout


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


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list", "--help"], ["rank", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = [
        "torch",
        "wandb",
        "ray",
        "avalanche",
        "torchvision",
        "pandas",
        "sklearn",
        "matplotlib",
        "numpy",
        "scipy",
        "ot",
        "streams.curricula.distances",
    ]
    program = (
        "import sys\nfrom cl_platform.cli.app import call\n"
        f"call({arguments!r})\nprint([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    assert "Usage: clp" in done.stdout


def test_a_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    unused = ["wandb", "ray", "avalanche", "torchvision", "pandas", "matplotlib"]
    program = (
        "import sys\nfrom cl_platform.cli.app import call\n"
        f"call(['run', '--stream', 'blobs', '--json'])\n"
        f"print([m for m in {unused!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_keeps_its_states(tmp_path: Path, sent: int, code: int) -> None:
    arguments = ["run", "--epochs", "300", "--strategy", "finetune"]
    process = start_clp(arguments, tmp_path)
    wait_for(lambda: list(tmp_path.glob("clp-results/states/*/*.pt")), process)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    if sent == signal.SIGINT:
        assert "are kept. Go on with: clp" in err
    assert len(err.splitlines()) == (sent == signal.SIGINT)
    assert not list(tmp_path.glob("**/.*"))


def test_a_folder_that_cannot_be_written(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = clp("run", *FAST, "--out", "file/results")
    assert code == 1
    assert "cannot write" in err
    assert "give another folder" in err
    assert len(err.splitlines()) == 1


def test_a_full_disk_loses_nothing(clp: Clp, tmp_path: Path) -> None:
    """Files may grow to 300 kB: the first records can be written, the first state (760 kB) cannot."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = start_clp(["run", "--json"], tmp_path, preexec_fn=limit)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    assert "cannot write" in err
    assert len(err.splitlines()) == 1
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {f.suffix for f in files} <= {".json", ".jsonl"}
    assert not [f for f in files if f.name.startswith(".")]
    code, out, _ = clp("run", "--json")
    assert code == 0
    assert json.loads(out)["metrics"]


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


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until a condition holds; fails if the process ends first."""
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("waited for a minute")


def test_the_examples_run(clp: Clp, tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    code, out, _ = clp("run", "--config", str(examples / "run.yaml"), "--json")
    assert code == 0
    assert json.loads(out)["config"]["optimizer"]["reset"] is False
    done = subprocess.run(
        [sys.executable, str(examples / "mine.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "beta 0.0",
        "beta 0.5",
        "beta 1.0",
    ]
