"""`clp export` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Clp = Callable[..., tuple[int, str, str]]
RUN = (
    "run", "--stream", "blobs", "--strategy", "finetune", "--set", "stream.experiences=2",
    "--set", "stream.samples_per_class=20", "--set", "model.hidden=[8]", "--json",
)  # fmt: skip


@pytest.fixture
def run_id(clp: Clp) -> str:
    code, out, err = clp(*RUN)
    assert code == 0, err
    return str(json.loads(out)["run_id"])


def test_a_run_is_given_by_its_id_the_beginning_of_it_or_its_folder(
    clp: Clp, run_id: str, tmp_path: Path
) -> None:
    for number, run in enumerate((run_id, run_id[:5], f"clp-results/runs/{run_id}")):
        code, out, err = clp("export", run, "--to", "torch", "--out", f"made-{number}")
        assert code == 0, err
        check, path = out.splitlines()
        assert "largest difference of logits" in check
        assert {p.name for p in Path(path).iterdir()} == {"model.pt2", "config.json", "README.md"}
    code, out, err = clp("export", run_id, "--to", "safetensors", "--json")
    assert Path(json.loads(out)["path"]) == tmp_path / f"{run_id}-safetensors"


def test_what_is_wrong_is_one_line_and_exit_code_2(clp: Clp, run_id: str) -> None:
    for arguments, line in (
        (["zzz", "--to", "torch"], "no run of"),
        ([run_id, "--to", "hf"], "give --to safetensors, torch or onnx"),
        ([run_id, "--to", "tflite"], "tflite"),
        ([run_id, "--to", "torch", "--license", "a b"], "identifier"),
        ([run_id, "--to", "torch", "--after", "9"], "has 0 to 2 experiences"),
        ([run_id, "--to", "torch", "--results", "elsewhere"], "0 runs are there"),
    ):
        code, out, err = clp("export", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert line in err
        assert len(err) < 500


def test_a_state_that_was_not_kept_is_said_and_trained_if_asked(clp: Clp) -> None:
    _, out, _ = clp(*RUN, "--keep-states", "none")
    run_id = json.loads(out)["run_id"]
    code, _, err = clp("export", run_id, "--to", "torch")
    assert code == 1
    assert "--retrain" in err
    assert len(err.splitlines()) == 1
    code, _, err = clp("export", run_id, "--to", "torch", "--retrain")
    assert code == 0, err


def test_its_help_imports_no_torch() -> None:
    code = (
        "import sys; from cl_platform.cli.app import call; call(['export', '--help']); "
        "assert not {'torch', 'numpy', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "safetensors" in done.stdout
